// One logged-in device of one user: matrix-js-sdk's client, plus what a test needs around it.
//
// Promise: a device waits only for events of its own client, with a deadline. Data from a sync is in the SDK's store,
// so a step looks there first, and then again after each event. The scenario itself is in flow.mjs.

import * as sdk from "matrix-js-sdk";
import { CryptoEvent } from "matrix-js-sdk/lib/crypto-api/index.js";
import { isDeepStrictEqual } from "node:util";

const DEADLINE_MS = 30_000;

// The SDK logs every request to the console. A failed step prints what it needs by itself, and the steps report through
// `console.log`.
for (const level of ["trace", "debug", "info", "warn", "error"]) console[level] = () => {};

/** A step that did not see what the spec promises. */
export class Failed extends Error {
    constructor(expected, got) {
        const show = (value) => (typeof value === "string" ? value : JSON.stringify(value));
        super(`expected ${show(expected)}\n     got      ${show(got)}`);
    }
}

export function expect(condition, expected, got) {
    if (!condition) throw new Failed(expected, got);
}

export function expectEqual(got, expected) {
    expect(isDeepStrictEqual(got, expected), expected, got);
}

/** Returns the next stage of user-interactive authentication, out of those in `stages`. */
function nextStage(answer, stages) {
    const completed = answer.completed ?? [];
    for (const flow of answer.flows) {
        const left = flow.stages.filter((stage) => !completed.includes(stage));
        if (left.length > 0 && left.every((stage) => stage in stages)) return left[0];
    }
    throw new Failed(`a flow of ${Object.keys(stages)}`, answer);
}

/** Repeats `request` and completes one stage after the other, until the server accepts it. */
export async function authenticate(request, stages) {
    let auth = null;
    for (;;) {
        try {
            return await request(auth);
        } catch (error) {
            const answer = error.data;
            if (error.httpStatus !== 401 || !answer?.flows || answer.errcode) throw error;
            const type = nextStage(answer, stages);
            auth = { type, session: answer.session, ...stages[type] };
        }
    }
}

export async function register(baseUrl, username, password, token) {
    const stages = { "m.login.dummy": {} };
    if (token) stages["m.login.registration_token"] = { token };
    const client = sdk.createClient({ baseUrl });
    const account = { username, password, inhibit_login: true };
    await authenticate(
        (auth) => client.registerRequest(auth === null ? account : { ...account, auth }),
        stages,
    );
}

export class Device {
    remainingInBackup = null;

    static async logIn(baseUrl, username, password, deviceId) {
        const login = await sdk.createClient({ baseUrl }).loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: username },
            password,
            device_id: deviceId,
            initial_device_display_name: `js-sdk flow, ${deviceId}`,
        });
        expectEqual(login.device_id, deviceId);
        const device = new Device();
        device.recoveryKeys = new Map();
        device.client = sdk.createClient({
            baseUrl,
            userId: login.user_id,
            deviceId,
            accessToken: login.access_token,
            timelineSupport: true,
            cryptoCallbacks: {
                getSecretStorageKey: async ({ keys }) =>
                    Object.keys(keys)
                        .filter((id) => device.recoveryKeys.has(id))
                        .map((id) => [id, device.recoveryKeys.get(id)])[0] ?? null,
                cacheSecretStorageKey: (id, _info, key) => device.recoveryKeys.set(id, key),
            },
        });
        await device.client.initRustCrypto({ useIndexedDB: false });
        device.crypto = device.client.getCrypto();
        device.client.on(CryptoEvent.KeyBackupSessionsRemaining, (remaining) => {
            device.remainingInBackup = remaining;
        });
        return device;
    }

    get userId() {
        return this.client.getUserId();
    }

    async start() {
        await this.client.startClient({ initialSyncLimit: 20, lazyLoadMembers: true });
        await this.until("a first sync", () => this.client.isInitialSyncComplete());
    }

    stop() {
        this.client.stopClient();
    }

    /** Waits until `find` returns something truthy, and calls it again after each event of the client. */
    async until(expected, find) {
        let wake;
        let timer;
        const deadline = new Promise((_, reject) => {
            const failed = new Failed(expected, `${DEADLINE_MS / 1000} s without it`);
            timer = setTimeout(() => reject(failed), DEADLINE_MS);
        });
        const events = [
            ...Object.values(sdk.ClientEvent),
            ...Object.values(sdk.RoomEvent),
            ...Object.values(sdk.RoomStateEvent),
            ...Object.values(sdk.RoomMemberEvent),
            ...Object.values(sdk.MatrixEventEvent),
            ...Object.values(CryptoEvent),
        ];
        const onEvent = () => wake?.();
        for (const event of events) this.client.on(event, onEvent);
        try {
            for (;;) {
                const woken = new Promise((resolve) => (wake = resolve));
                const found = await Promise.race([find(), deadline]);
                if (found) return found;
                await Promise.race([woken, deadline]);
            }
        } finally {
            clearTimeout(timer);
            for (const event of events) this.client.off(event, onEvent);
        }
    }

    room(roomId) {
        return this.client.getRoom(roomId);
    }

    /** Waits for the event in the room's timeline. */
    receives(roomId, eventId) {
        return this.until(eventId, () => this.room(roomId)?.findEventById(eventId));
    }

    /** Waits for the message, and checks that it was encrypted and contains `content`. */
    async decrypts(roomId, eventId, content) {
        const event = await this.receives(roomId, eventId);
        await this.until(`a decrypted ${eventId}`, () => {
            return event.getClearContent() !== null && !event.isDecryptionFailure();
        });
        expectEqual(event.getWireType(), "m.room.encrypted");
        expectEqual(event.getType(), "m.room.message");
        const clear = event.getClearContent();
        expectEqual(Object.fromEntries(Object.keys(content).map((k) => [k, clear[k]])), content);
        return event;
    }

    async send(roomId, content) {
        return (await this.client.sendMessage(roomId, content)).event_id;
    }

    /** Sends a request that needs no state of the SDK, and returns its status and JSON. */
    async whoami() {
        const response = await fetch(`${this.client.baseUrl}/_matrix/client/v3/account/whoami`, {
            headers: { Authorization: `Bearer ${this.client.getAccessToken()}` },
        });
        return [response.status, await response.json()];
    }
}
