// Two users talk in an encrypted room through matrix-js-sdk. A second device joins in, and restores the history from
// the key backup.
//
//     flow.mjs --homeserver URL [--registration-token TOKEN] [--room-version VERSION]
//
// Prints `ok <step>` for each step. Stops at the first step that fails, prints the expected and the actual value, and
// exits with 1. Works against any homeserver; each run creates its own users.

import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { EventTimeline, Preset } from "matrix-js-sdk";
import { Device, Failed, authenticate, expect, expectEqual, register } from "./device.mjs";

const MESSAGES = JSON.parse(readFileSync(new URL("../messages.json", import.meta.url), "utf8"));

const { values: options } = parseArgs({
    options: {
        "homeserver": { type: "string" },
        "registration-token": { type: "string" },
        "room-version": { type: "string" },
    },
});
if (!options.homeserver) throw new Error("--homeserver URL is needed");
const homeserver = options.homeserver.replace(/\/+$/, "");
const suffix = randomBytes(4).toString("hex");
const password = randomBytes(16).toString("base64url");
const devices = [];
let alice, bob, bobTwo, roomId, original, recoveryKey;

const text = (body) => ({ msgtype: "m.text", body });
const username = (name) => `${name}-${suffix}`;

async function logIn(name, deviceId) {
    const device = await Device.logIn(homeserver, username(name), password, deviceId);
    devices.push(device);
    return device;
}

const passwordStage = (device) => ({
    "m.login.password": {
        identifier: { type: "m.id.user", user: device.userId },
        password,
    },
    "m.login.dummy": {},
});

async function bootstrapCrossSigning(device) {
    await device.crypto.bootstrapCrossSigning({
        authUploadDeviceSigningKeys: (request) => authenticate(request, passwordStage(device)),
    });
    expect(await device.crypto.isCrossSigningReady(), "cross-signing", "none");
}

/** Tells whether the owner's cross-signing key signed the device, as `viewer` sees it. */
async function isSignedByOwner(viewer, userId, deviceId) {
    const status = await viewer.crypto.getDeviceVerificationStatus(userId, deviceId);
    return status?.signedByOwner;
}

const knowsDevice = (device, userId, deviceId) =>
    device.until(`${deviceId} in the device list`, async () => {
        const known = await device.crypto.getUserDeviceInfo([userId]);
        return known.get(userId)?.has(deviceId);
    });

const steps = {
    async "register two users"() {
        for (const name of ["alice", "bob"]) {
            await register(homeserver, username(name), password, options["registration-token"]);
        }
    },

    async "log in and sync"() {
        alice = await logIn("alice", "ALICEONE");
        bob = await logIn("bob", "BOBONE");
        for (const device of [alice, bob]) {
            await device.start();
            const [status, who] = await device.whoami();
            expectEqual([status, who.user_id, who.device_id], [200, device.userId, device.client.getDeviceId()]);
        }
    },

    async "cross-signing"() {
        for (const device of [alice, bob]) {
            await bootstrapCrossSigning(device);
            const deviceId = device.client.getDeviceId();
            await device.until("its own device signed", () => isSignedByOwner(device, device.userId, deviceId));
        }
    },

    async "secret storage and key backup"() {
        recoveryKey = await bob.crypto.createRecoveryKeyFromPassphrase();
        await bob.crypto.bootstrapSecretStorage({
            createSecretStorageKey: async () => recoveryKey,
            setupNewSecretStorage: true,
            setupNewKeyBackup: true,
        });
        expect(await bob.crypto.isSecretStorageReady(), "secret storage", "none");
        const version = await bob.crypto.getActiveSessionBackupVersion();
        expect(version, "an active key backup", version);
    },

    async "create an encrypted room"() {
        const created = await alice.client.createRoom({
            name: "Encrypted",
            topic: "js-sdk flow",
            preset: Preset.TrustedPrivateChat,
            is_direct: true,
            room_version: options["room-version"],
            initial_state: [
                { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } },
            ],
        });
        roomId = created.room_id;
        await alice.until("an encrypted room", () => alice.room(roomId)?.hasEncryptionStateEvent());
        await alice.until("its name", () => alice.room(roomId).name === "Encrypted");
    },

    async "invite and join"() {
        await alice.client.invite(roomId, bob.userId);
        await bob.until("an invite", () => bob.room(roomId)?.getMyMembership() === "invite");
        await bob.client.joinRoom(roomId);
        await bob.until("the joined room", () => bob.room(roomId)?.getMyMembership() === "join");
        await bob.until("its encryption", () => bob.room(roomId).hasEncryptionStateEvent());
        await alice.until("Bob's join", () => alice.room(roomId).getMember(bob.userId)?.membership === "join");
    },

    async "Alice writes and Bob decrypts"() {
        for (const content of MESSAGES) {
            await bob.decrypts(roomId, await alice.send(roomId, content), content);
        }
    },

    async "Bob writes and Alice decrypts"() {
        for (const content of MESSAGES) {
            await alice.decrypts(roomId, await bob.send(roomId, content), content);
        }
    },

    async "every room key is in the backup"() {
        // Two keys: Alice's, which Bob received, and his own.
        await bob.until("an upload of every key", async () => {
            // The SDK only knows the backup as it was at its creation, so the count is requested here.
            const backup = await bob.client.http.authedRequest("GET", "/room_keys/version");
            return bob.remainingInBackup === 0 && backup.count >= 2;
        });
    },

    async "a second device verifies itself from secret storage"() {
        bobTwo = await logIn("bob", "BOBTWO");
        await bobTwo.start();
        const keyId = await bobTwo.client.secretStorage.getDefaultKeyId();
        expect(keyId, "a default key of secret storage", keyId);
        bobTwo.recoveryKeys.set(keyId, recoveryKey.privateKey);
        // The private keys are accepted only when the public ones are known.
        expect(await bobTwo.crypto.userHasCrossSigningKeys(bob.userId, true), "Bob's keys", "none");
        await bootstrapCrossSigning(bobTwo);
        for (const device of [alice, bob]) {
            await knowsDevice(device, bob.userId, "BOBTWO");
            await device.until("BOBTWO signed by Bob", () => isSignedByOwner(device, bob.userId, "BOBTWO"));
        }
    },

    async "it restores the backup and reads what came before it"() {
        await bobTwo.crypto.loadSessionBackupPrivateKeyFromSecretStorage();
        const backup = await bobTwo.crypto.checkKeyBackupAndEnable();
        expect(backup?.trustInfo.trusted, "a trusted key backup", backup);
        const restored = await bobTwo.crypto.restoreKeyBackup();
        expect(restored.imported >= 2, "two room keys or more", restored);
        const timeline = bobTwo.room(roomId).getLiveTimeline();
        await bobTwo.client.paginateEventTimeline(timeline, { backwards: true, limit: 50 });
        const messages = timeline.getEvents().filter((event) => event.getWireType() === "m.room.encrypted");
        await bobTwo.until("the old messages decrypted", () => messages.every((e) => e.getClearContent()));
        const got = messages.map((event) => event.getContent().body);
        const bodies = MESSAGES.map((content) => content.body);
        expectEqual(got, [...bodies, ...bodies]);
    },

    async "it decrypts new messages, and writes"() {
        const first = text("to both of Bob's devices");
        const firstId = await alice.send(roomId, first);
        for (const device of [bob, bobTwo]) await device.decrypts(roomId, firstId, first);
        const second = text("from Bob's second device");
        const secondId = await bobTwo.send(roomId, second);
        for (const device of [alice, bob]) await device.decrypts(roomId, secondId, second);
    },

    async "reply"() {
        original = await alice.send(roomId, text("a question"));
        await bob.decrypts(roomId, original, text("a question"));
        const content = { ...text("an answer"), "m.relates_to": { "m.in_reply_to": { event_id: original } } };
        const event = await alice.receives(roomId, await bob.send(roomId, content));
        await alice.until("its text", () => event.getClearContent()?.body === "an answer");
        expectEqual(event.replyEventId, original);
    },

    async "edit"() {
        await alice.send(roomId, {
            ...text("* a better question"),
            "m.new_content": text("a better question"),
            "m.relates_to": { rel_type: "m.replace", event_id: original },
        });
        const event = bob.room(roomId).findEventById(original);
        await bob.until("the new text", () => event.getContent().body === "a better question");
    },

    async "reaction"() {
        const relation = { rel_type: "m.annotation", event_id: original, key: "👍️" };
        const sent = await bob.client.sendEvent(roomId, "m.reaction", { "m.relates_to": relation });
        const event = await alice.receives(roomId, sent.event_id);
        await alice.until("the reaction", () => event.getRelation()?.key === "👍️");
    },

    async "redaction"() {
        const doomed = await alice.send(roomId, text("a mistake"));
        const event = await bob.decrypts(roomId, doomed, text("a mistake"));
        await alice.client.redactEvent(roomId, doomed, undefined, { reason: "a mistake" });
        await bob.until("the redaction", () => event.isRedacted());
        const stored = await bob.client.fetchRoomEvent(roomId, doomed);
        expectEqual(stored.content, {});
    },

    async "typing"() {
        const typing = () => alice.room(roomId).getMember(bob.userId).typing;
        await bob.client.sendTyping(roomId, true, 30_000);
        await alice.until("Bob typing", typing);
        await bob.client.sendTyping(roomId, false, 0);
        await alice.until("Bob not typing", () => !typing());
    },

    async "read receipt"() {
        const sent = await alice.send(roomId, text("read me"));
        await bob.client.sendReadReceipt(await bob.receives(roomId, sent));
        const room = alice.room(roomId);
        await alice.until("a read receipt", () => room.getEventReadUpTo(bob.userId, true) === sent);
    },

    async "read marker"() {
        const sent = await alice.send(roomId, text("read up to here"));
        const event = await bob.receives(roomId, sent);
        await bob.client.setRoomReadMarkers(roomId, sent, event);
        await bobTwo.until(
            "m.fully_read on the other device",
            () => bobTwo.room(roomId).getAccountData("m.fully_read")?.getContent().event_id === sent,
        );
    },

    async "display name"() {
        const name = "Bób 🦊 بوب";
        await bob.client.setDisplayName(name);
        await alice.until("the new name", () => alice.room(roomId).getMember(bob.userId).rawDisplayName === name);
        expectEqual((await alice.client.getProfileInfo(bob.userId)).displayname, name);
    },

    async "account data"() {
        const content = { theme: "dark", nested: { list: [1, "two", null, true] } };
        await bob.client.setAccountData("org.example.settings", content);
        const event = await bobTwo.until("it on the other device", () =>
            bobTwo.client.getAccountData("org.example.settings"),
        );
        expectEqual(event.getContent(), content);
        await bob.client.setRoomTag(roomId, "m.favourite", { order: 0.5 });
        await bobTwo.until("the tag", () => bobTwo.room(roomId).tags["m.favourite"]?.order === 0.5);
    },

    async "state of the room"() {
        const state = alice.room(roomId).getLiveTimeline().getState(EventTimeline.FORWARDS);
        expectEqual(state.getStateEvents("m.room.topic", "").getContent().topic, "js-sdk flow");
        await bob.room(roomId).loadMembersIfNeeded();
        const joined = bob.room(roomId).getJoinedMembers().map((member) => member.userId);
        expectEqual(joined.sort(), [alice.userId, bob.userId].sort());
    },

    async "logout of one device leaves the other"() {
        await bobTwo.client.logout(true);
        const [status, answer] = await bobTwo.whoami();
        expectEqual([status, answer.errcode], [401, "M_UNKNOWN_TOKEN"]);
        expectEqual((await bob.whoami())[0], 200);
        const listed = (await bob.client.getDevices()).devices.map((device) => device.device_id);
        expectEqual(listed, ["BOBONE"]);
        const content = text("still there?");
        await bob.decrypts(roomId, await alice.send(roomId, content), content);
    },
};

let passed = 0;
let failed = 0;
try {
    for (const [name, step] of Object.entries(steps)) {
        const startedAt = Date.now();
        try {
            await step();
        } catch (error) {
            console.log(`FAIL ${name}\n     ${error instanceof Failed ? error.message : error.stack}`);
            failed += 1;
            break;
        }
        passed += 1;
        console.log(`ok  ${name} (${((Date.now() - startedAt) / 1000).toFixed(1)} s)`);
    }
} finally {
    for (const device of devices) device.stop();
}
console.log(`${passed} passed, ${failed} failed`);
// The SDK leaves the timers of finished requests running, which would keep Node alive for two minutes.
process.exit(failed > 0 ? 1 : 0);
