"""One logged-in device of one user: matrix-nio's client, plus what a test needs around it.

Promise: a device waits only inside `/sync`, with a deadline. It keeps everything from its syncs
(timeline, ephemeral events, account data), so that a step can look for earlier events.
The scenario itself is in `flow.py`.
"""

import json
import time
from dataclasses import dataclass, field

from nio import AsyncClient, AsyncClientConfig, ErrorResponse, MegolmEvent, RoomMessage
from nio.responses import KeysQueryError, KeysUploadError, SyncError

DEADLINE_SECONDS = 30
POLL_MS = 2_000

# Without these, matrix-nio retries failed and rate-limited requests for ever.
CONFIG = AsyncClientConfig(
    max_limit_exceeded=0, max_timeouts=0, request_timeout=DEADLINE_SECONDS
)


class Failed(Exception):
    """A step that did not see what the spec promises."""

    def __init__(self, expected, got):
        super().__init__(f"expected {expected}\n     got      {got}")


def expect(condition, expected, got):
    if not condition:
        raise Failed(expected, got)


def success(response):
    """Returns the response, after a check that it is no error."""
    expect(not isinstance(response, ErrorResponse), "a successful response", response)
    return response


@dataclass
class Device:
    client: AsyncClient
    timeline: dict = field(default_factory=dict)
    ephemeral: list = field(default_factory=list)
    account_data: list = field(default_factory=list)
    key_counts: list = field(default_factory=list)

    @classmethod
    async def log_in(cls, homeserver, username, password, device_id, store):
        client = AsyncClient(homeserver, username, device_id, str(store), CONFIG)
        device = cls(client)
        client.add_ephemeral_callback(lambda room, event: device.ephemeral.append(event), object)
        client.add_global_account_data_callback(device.account_data.append, object)
        try:
            success(await client.login(password, device_name=f"nio flow, {device_id}"))
        except BaseException:
            await client.close()
            raise
        return device

    @property
    def user_id(self):
        return self.client.user_id

    async def sync(self, timeout_ms=0, **arguments):
        """Sends one `/sync`, and then the requests for encryption that its answer makes necessary."""
        response = await self.client.sync(timeout=timeout_ms, **arguments)
        expect(not isinstance(response, SyncError), "a sync response", response)
        self.key_counts.append(response.device_key_count.signed_curve25519)
        for room_id, room in response.rooms.join.items():
            known = self.timeline.setdefault(room_id, [])
            if room.timeline.limited and known:
                known.extend(await self.gap(room_id, room.timeline.prev_batch, known[-1].event_id))
            known.extend(room.timeline.events)
        if self.client.should_upload_keys:
            uploaded = await self.client.keys_upload()
            expect(not isinstance(uploaded, KeysUploadError), "uploaded keys", uploaded)
        if self.client.should_query_keys:
            queried = await self.client.keys_query()
            expect(not isinstance(queried, KeysQueryError), "the queried keys", queried)
        if self.client.should_claim_keys:
            success(await self.client.keys_claim(self.client.get_users_for_key_claiming()))
        for sent in await self.client.send_to_device_messages():
            success(sent)
        return response

    async def gap(self, room_id, prev_batch, last_event_id):
        """Returns the events missing before a limited timeline, back to the last known one."""
        missed, start = [], prev_batch
        while start is not None:
            page = success(await self.client.room_messages(room_id, start, limit=5))
            for event in page.chunk:
                if event.event_id == last_event_id:
                    return missed[::-1]
                if isinstance(event, MegolmEvent):
                    event = self.client.decrypt_event(event)
                missed.append(event)
            start = page.end if page.chunk else None
        raise Failed(f"/messages to come back to {last_event_id}", f"{len(missed)} events without it")

    async def until(self, expected, find):
        """Syncs until `find()` returns something true, and returns that."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        found = find()
        while not found:
            if time.monotonic() > deadline:
                raise Failed(expected, f"{DEADLINE_SECONDS} s of syncs without it: {self.seen()}")
            await self.sync(POLL_MS)
            found = find()
        return found

    def seen(self):
        """Returns the last events of every room, for the report of a failure."""
        return {room: [str(event) for event in events[-5:]] for room, events in self.timeline.items()}

    def event(self, room_id, event_id):
        """Returns the event from `/sync`, decrypted if that was possible."""
        return next((e for e in self.timeline.get(room_id, ()) if e.event_id == event_id), None)

    async def receives(self, room_id, event_id):
        return await self.until(event_id, lambda: self.event(room_id, event_id))

    async def decrypts(self, room_id, event_id, content):
        """Waits for the message, and checks that it was encrypted and contains `content`."""
        event = await self.receives(room_id, event_id)
        expect(isinstance(event, RoomMessage), f"a decrypted message {event_id}", event)
        expect(event.decrypted, f"{event_id} to have been sent encrypted", "a plain event")
        got = {key: event.source["content"].get(key) for key in content}
        expect(got == content, content, got)
        return event

    async def send(self, room_id, content, event_type="m.room.message"):
        response = await self.client.room_send(
            room_id, event_type, content, ignore_unverified_devices=True
        )
        return success(response).event_id

    async def call(self, method, path, body=None):
        """Sends a request that matrix-nio has no function for, and returns its status and JSON."""
        response = await self.client.send(
            method,
            f"/_matrix/client/v3{path}",
            None if body is None else json.dumps(body),
            {
                "Authorization": f"Bearer {self.client.access_token}",
                "Content-Type": "application/json",
            },
        )
        return response.status, await response.json()
