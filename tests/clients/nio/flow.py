"""Two users talk in an encrypted room through matrix-nio, and a second device joins in.

    flow.py --homeserver URL [--registration-token TOKEN] [--room-version VERSION]

Prints `ok  <step>` for each step. Stops at the first step that fails, prints the expected and the
actual value, and exits with 1. Works against any homeserver; each run creates its own users.
"""

import argparse
import asyncio
import json
import logging
import secrets
import sys
import tempfile
import time
import traceback
from pathlib import Path

from device import Device, Failed, expect, success
from nio import (
    MegolmEvent,
    ReactionEvent,
    ReceiptEvent,
    RedactionEvent,
    RoomMemberEvent,
    RoomPreset,
    TypingNoticeEvent,
    UnknownAccountDataEvent,
)
from registration import register

ENCRYPTION = {
    "type": "m.room.encryption",
    "state_key": "",
    "content": {"algorithm": "m.megolm.v1.aes-sha2"},
}

# Texts as people write them: joined emoji, right-to-left text with a bidi mark, HTML, combining characters.
MESSAGES = json.loads((Path(__file__).parent.parent / "messages.json").read_text("utf-8"))


def text(body, **relation):
    content = {"msgtype": "m.text", "body": body}
    if relation:
        content["m.relates_to"] = relation
    return content


class Flow:
    """The scenario: one function per step, in the order in which they run."""

    def __init__(self, options, store):
        self.homeserver = options.homeserver.rstrip("/")
        self.token = options.registration_token
        self.room_version = options.room_version
        self.store = store
        self.suffix = secrets.token_hex(4)
        self.password = secrets.token_urlsafe(16)
        self.devices = []

    async def close(self):
        for device in self.devices:
            await device.client.close()

    async def log_in(self, name, device_id):
        device = await Device.log_in(
            self.homeserver, f"{name}-{self.suffix}", self.password, device_id, self.store
        )
        self.devices.append(device)
        return device

    async def register_two_users(self):
        for name in ("alice", "bob"):
            await register(self.homeserver, f"{name}-{self.suffix}", self.password, self.token)

    async def log_in_and_upload_keys(self):
        self.alice = await self.log_in("alice", "ALICEONE")
        self.bob = await self.log_in("bob", "BOBONE")
        for device in (self.alice, self.bob):
            who = success(await device.client.whoami())
            got = (who.user_id, who.device_id)
            expected = (device.client.user_id, device.client.device_id)
            expect(got == expected, expected, got)
            await device.until("an upload of keys", lambda d=device: d.client.olm_account_shared)

    async def sync_with_a_stored_filter(self):
        lazy = {"state": {"lazy_load_members": True}, "timeline": {"limit": 50}}
        filter_id = success(await self.alice.client.upload_filter(room=lazy)).filter_id
        await self.alice.sync(sync_filter=filter_id)

    async def create_an_encrypted_room(self):
        response = await self.alice.client.room_create(
            name="Encrypted",
            topic="nio flow",
            preset=RoomPreset.trusted_private_chat,
            initial_state=[ENCRYPTION],
            is_direct=True,
            room_version=self.room_version,
        )
        self.room = success(response).room_id
        rooms = self.alice.client.rooms
        room = await self.alice.until("the new room", lambda: rooms.get(self.room))
        expect(room.encrypted, "an encrypted room", "a room without m.room.encryption")
        expect(room.name == "Encrypted", "the name 'Encrypted'", room.name)

    async def invite_and_join(self):
        success(await self.alice.client.room_invite(self.room, self.bob.user_id))
        invited = self.bob.client.invited_rooms
        room = await self.bob.until("an invite", lambda: invited.get(self.room))
        expect(room.inviter == self.alice.user_id, self.alice.user_id, room.inviter)
        success(await self.bob.client.join(self.room))
        rooms = self.bob.client.rooms
        room = await self.bob.until("the joined room", lambda: rooms.get(self.room))
        expect(room.encrypted, "an encrypted room", "a room without m.room.encryption")
        await self.alice.until("Bob's join", lambda: self.is_joined(self.alice, self.bob.user_id))

    def is_joined(self, device, user_id):
        return any(
            isinstance(event, RoomMemberEvent)
            and event.state_key == user_id
            and event.membership == "join"
            for event in device.timeline.get(self.room, ())
        )

    async def alice_writes_and_bob_decrypts(self):
        for content in MESSAGES:
            event_id = await self.alice.send(self.room, content)
            await self.bob.decrypts(self.room, event_id, content)

    async def bob_writes_and_alice_decrypts(self):
        for content in MESSAGES:
            event_id = await self.bob.send(self.room, content)
            await self.alice.decrypts(self.room, event_id, content)

    async def many_messages_in_order(self):
        """Sends more messages than a timeline holds: Bob fills the gap with `/messages`."""
        sent = [await self.alice.send(self.room, text(f"message {n}")) for n in range(20)]
        await self.bob.receives(self.room, sent[-1])
        got = [e.event_id for e in self.bob.timeline[self.room] if e.event_id in sent]
        expect(got == sent, sent, got)

    async def a_claimed_one_time_key_is_used_up(self):
        # Alice claimed one of Bob's keys for her first message; his next syncs count one less.
        counts = [count for count in self.bob.key_counts if count is not None]
        full = max(counts, default=0)
        expect(full - 1 in counts[counts.index(full) :], f"{full}, then {full - 1} keys", counts)

    async def a_second_device_decrypts_new_messages(self):
        self.bob_two = await self.log_in("bob", "BOBTWO")
        await self.bob_two.sync(full_state=True)
        await self.knows_device(self.alice, "BOBTWO")
        event_id = await self.alice.send(self.room, text("to both of Bob's devices"))
        for device in (self.bob, self.bob_two):
            await device.decrypts(self.room, event_id, text("to both of Bob's devices"))

    async def knows_device(self, device, device_id):
        known = device.client.device_store
        await device.until(
            f"{device_id} in Bob's device list", lambda: device_id in known[self.bob.user_id]
        )

    async def the_second_device_writes(self):
        await self.knows_device(self.bob, "BOBTWO")
        event_id = await self.bob_two.send(self.room, text("from Bob's second device"))
        for device in (self.alice, self.bob):
            await device.decrypts(self.room, event_id, text("from Bob's second device"))

    async def reply(self):
        self.original = await self.alice.send(self.room, text("a question"))
        await self.bob.receives(self.room, self.original)
        content = text("an answer", **{"m.in_reply_to": {"event_id": self.original}})
        event_id = await self.bob.send(self.room, content)
        await self.alice.decrypts(self.room, event_id, content)

    async def edit(self):
        content = {
            **text("* a better question", rel_type="m.replace", event_id=self.original),
            "m.new_content": text("a better question"),
        }
        event_id = await self.alice.send(self.room, content)
        await self.bob.decrypts(self.room, event_id, content)

    async def reaction(self):
        relation = {"rel_type": "m.annotation", "event_id": self.original, "key": "👍️"}
        event_id = await self.bob.send(self.room, {"m.relates_to": relation}, "m.reaction")
        event = await self.alice.receives(self.room, event_id)
        expect(isinstance(event, ReactionEvent), "a reaction", event)
        got = (event.reacts_to, event.key)
        expect(got == (self.original, "👍️"), (self.original, "👍️"), got)

    async def redaction(self):
        doomed = await self.alice.send(self.room, text("a mistake"))
        await self.bob.receives(self.room, doomed)
        response = await self.alice.client.room_redact(self.room, doomed, reason="a mistake")
        redaction = await self.bob.receives(self.room, success(response).event_id)
        expect(isinstance(redaction, RedactionEvent), "a redaction", redaction)
        expect(redaction.redacts == doomed, doomed, redaction.redacts)
        status, event = await self.bob.call("GET", f"/rooms/{self.room}/event/{doomed}")
        expect(status == 200 and event["content"] == {}, "an event without content", event)
        because = event["unsigned"]["redacted_because"]
        expect(because["event_id"] == redaction.event_id, redaction.event_id, because)

    async def history(self):
        """`/messages` returns the events of `/sync` backwards, without a gap or a repetition."""
        got, start = [], self.alice.client.next_batch
        for _ in range(20):
            page = success(await self.alice.client.room_messages(self.room, start, limit=10))
            got.extend(page.chunk)
            start = page.end
            if not page.chunk or start is None:
                break
        got = [event.event_id for event in reversed(got)]
        seen = [event.event_id for event in self.alice.timeline[self.room]]
        expect(got[-len(seen) :] == seen, seen, got)
        expect(len(set(got)) == len(got), "each event once", got)

    async def typing(self):
        success(await self.bob.client.room_typing(self.room, True))
        await self.alice.until("Bob typing", lambda: self.last_typing() == [self.bob.user_id])
        success(await self.bob.client.room_typing(self.room, False))
        await self.alice.until("nobody typing", lambda: self.last_typing() == [])

    def last_typing(self):
        notices = [e for e in self.alice.ephemeral if isinstance(e, TypingNoticeEvent)]
        return notices[-1].users if notices else None

    async def read_receipt(self):
        await self.bob.receives(self.room, self.original)
        success(await self.bob.client.update_receipt_marker(self.room, self.original))
        expected = (self.bob.user_id, self.original)
        await self.alice.until("a read receipt", lambda: expected in self.receipts())

    def receipts(self):
        events = (e for e in self.alice.ephemeral if isinstance(e, ReceiptEvent))
        return {(r.user_id, r.event_id) for event in events for r in event.receipts}

    async def read_marker(self):
        last = await self.alice.send(self.room, text("read up to here"))
        await self.bob.receives(self.room, last)
        success(await self.bob.client.room_read_markers(self.room, last, last))
        room = self.bob_two.client.rooms[self.room]
        await self.bob_two.until("m.fully_read", lambda: room.fully_read_marker == last)
        expected = (self.bob.user_id, last)
        await self.alice.until("its read receipt", lambda: expected in self.receipts())

    async def display_name(self):
        name = "Bób 🦊 بوب"
        success(await self.bob.client.set_displayname(name))
        room = self.alice.client.rooms[self.room]
        user_id = self.bob.user_id
        await self.alice.until("the new name", lambda: room.users[user_id].display_name == name)
        profile = success(await self.alice.client.get_profile(user_id))
        expect(profile.displayname == name, name, profile.displayname)

    async def account_data(self):
        content = {"theme": "dark", "nested": {"list": [1, "two", None, True]}}
        path = f"/user/{self.bob.user_id}/account_data/org.example.settings"
        status, answer = await self.bob.call("PUT", path, content)
        expect(status == 200, 200, (status, answer))
        await self.bob_two.until(
            "the account data on the other device",
            lambda: any(
                isinstance(e, UnknownAccountDataEvent)
                and (e.type, e.content) == ("org.example.settings", content)
                for e in self.bob_two.account_data
            ),
        )
        status, answer = await self.bob.call("GET", path)
        expect(answer == content, content, (status, answer))

    async def device_list(self):
        devices = success(await self.bob.client.devices()).devices
        got = sorted(device.id for device in devices)
        expect(got == ["BOBONE", "BOBTWO"], ["BOBONE", "BOBTWO"], got)

    async def logout_of_one_device_leaves_the_other(self):
        gone = f"Bearer {self.bob_two.client.access_token}"
        success(await self.bob_two.client.logout())
        response = await self.bob.client.send(
            "GET", "/_matrix/client/v3/account/whoami", headers={"Authorization": gone}
        )
        answer = (response.status, (await response.json()).get("errcode"))
        expect(answer == (401, "M_UNKNOWN_TOKEN"), (401, "M_UNKNOWN_TOKEN"), answer)
        status, answer = await self.bob.call("GET", "/account/whoami")
        expect(status == 200, 200, (status, answer))
        event_id = await self.alice.send(self.room, text("still there?"))
        await self.bob.decrypts(self.room, event_id, text("still there?"))

    async def nothing_stayed_encrypted(self):
        for device in (self.alice, self.bob):
            left = [e for e in device.timeline[self.room] if isinstance(e, MegolmEvent)]
            expect(not left, "every message decrypted", left)

    def steps(self):
        return [
            self.register_two_users,
            self.log_in_and_upload_keys,
            self.sync_with_a_stored_filter,
            self.create_an_encrypted_room,
            self.invite_and_join,
            self.alice_writes_and_bob_decrypts,
            self.bob_writes_and_alice_decrypts,
            self.many_messages_in_order,
            self.a_claimed_one_time_key_is_used_up,
            self.a_second_device_decrypts_new_messages,
            self.the_second_device_writes,
            self.reply,
            self.edit,
            self.reaction,
            self.redaction,
            self.history,
            self.typing,
            self.read_receipt,
            self.read_marker,
            self.display_name,
            self.account_data,
            self.device_list,
            self.logout_of_one_device_leaves_the_other,
            self.nothing_stayed_encrypted,
        ]


async def data_chunks(data):
    yield data


async def run(options):
    passed, failed = 0, 0
    with tempfile.TemporaryDirectory() as store:
        flow = Flow(options, Path(store))
        try:
            for step in flow.steps():
                name = step.__name__.replace("_", " ")
                started_at = time.monotonic()
                try:
                    await step()
                except Failed as failure:
                    print(f"FAIL {name}\n     {failure}", flush=True)
                    failed += 1
                    break
                except Exception:  # the client itself gave up: say where
                    print(f"FAIL {name}\n{traceback.format_exc()}", flush=True)
                    failed += 1
                    break
                passed += 1
                print(f"ok  {name} ({time.monotonic() - started_at:.1f} s)", flush=True)
        finally:
            await flow.close()
    print(f"{passed} passed, {failed} failed")
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--homeserver", required=True)
    parser.add_argument("--registration-token")
    parser.add_argument("--room-version")
    # matrix-nio warns about each device without a session, and then creates one.
    logging.getLogger("nio").setLevel(logging.ERROR)
    sys.exit(1 if asyncio.run(run(parser.parse_args())) else 0)


if __name__ == "__main__":
    main()
