"""Registration of a test user, on an open server or with a registration token.

matrix-nio's own `register` sends `m.login.dummy` at once, and its `register_with_token` always ends
with a dummy stage. A server may accept neither, so the token follows the flows that the server names.
"""

from aiohttp import ClientSession
from device import CONFIG, expect, success
from nio import AsyncClient


async def register(homeserver, username, password, token):
    """Registers the user, and logs out the device of the registration."""
    client = AsyncClient(homeserver, username, config=CONFIG)
    try:
        if token is None:
            success(await client.register(username, password))
        else:
            client.access_token = await register_with_token(homeserver, username, password, token)
        success(await client.logout())
    finally:
        await client.close()


async def register_with_token(homeserver, username, password, token):
    url = f"{homeserver}/_matrix/client/v3/register"
    stages = {
        "m.login.registration_token": {"token": token},
        "m.login.dummy": {},
    }
    async with ClientSession() as session:
        auth = None
        # The first request learns the flows; each of the others completes one stage.
        for _ in range(len(stages) + 1):
            body = {"username": username, "password": password}
            if auth is not None:
                body["auth"] = auth
            async with session.post(url, json=body) as response:
                answer = await response.json()
                if response.status == 200:
                    return answer["access_token"]
                expect(response.status == 401 and "flows" in answer, "registration flows", answer)
            stage = next_stage(answer, stages)
            auth = {"type": stage, "session": answer["session"], **stages[stage]}
        expect(False, "registration to end with its last stage", answer)


def next_stage(answer, stages):
    completed = answer.get("completed", [])
    for flow in answer["flows"]:
        left = [stage for stage in flow["stages"] if stage not in completed]
        if left and all(stage in stages for stage in left):
            return left[0]
    return expect(False, f"a flow of {sorted(stages)}", answer)
