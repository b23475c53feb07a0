"""The plan's scenario for those who know Locust: acquire, three heartbeats, release.

    pip install locust "pyjwt[crypto]"
    LOAD_TOKENS=tokens.txt locust -f loadtests/locustfile.py --host http://127.0.0.1:8000 \\
        --headless --users 100 --spawn-rate 10 --run-time 10m

100 users with a request every 6 seconds each are 1,000 requests a minute. Where the callers' tokens come from:

LOAD_TOKENS   a file with one JWT per line, dealt out to the users in turn; or
LOAD_KEY      an RSA private key (PEM) whose public half the server's issuer publishes, with LOAD_ISSUER (`iss`),
              LOAD_AUDIENCE (`aud`), LOAD_TENANT (an existing tenant's id), LOAD_KID ("loadtests").

Locust is a closed loop and runs in Python: good for a picture in the browser and for a first look. A server that
stalls makes Locust's users wait without counting what they did not send; `loadtests load plan` counts that.
"""

import itertools
import os
import time
import uuid

from locust import HttpUser, constant_throughput, events, task

P99_LIMIT_MS = 500
ERROR_RATE_LIMIT = 0.01

_numbers = itertools.count()


def _tokens_from_file():
    path = os.environ.get("LOAD_TOKENS")
    if not path:
        return None
    with open(path, encoding="ascii") as file:
        return file.read().split()


TOKENS = _tokens_from_file()


def _token(number: int) -> str:
    """The n-th user's token."""
    if TOKENS:
        return TOKENS[number % len(TOKENS)]
    import jwt  # Only needed to mint tokens.

    with open(os.environ["LOAD_KEY"], encoding="ascii") as file:
        key = file.read()
    now = int(time.time())
    claims = {
        "iss": os.environ["LOAD_ISSUER"],
        "aud": os.environ["LOAD_AUDIENCE"],
        "sub": f"locust-user-{number:05}",
        "email": f"locust-user-{number:05}@load.example",
        "tenant_id": os.environ["LOAD_TENANT"],
        "roles": [],
        "iat": now,
        "exp": now + 24 * 3600,
    }
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": os.environ.get("LOAD_KID", "loadtests")})


class Developer(HttpUser):
    """One user at one machine."""

    # Together with Locust's --users this is the arrival rate: 100 users, one request each 6 s.
    wait_time = constant_throughput(1 / 6)

    def on_start(self):
        self.client.headers["Authorization"] = f"Bearer {_token(next(_numbers))}"
        self.machine = f"locust-{uuid.uuid4().hex}"
        self.session_id = None
        self.heartbeats = 0

    @task
    def next_request(self):
        """A task is one request, so that the wait lies between requests."""
        if self.session_id is None:
            self.acquire()
        elif self.heartbeats < 3:
            self.heartbeat()
        else:
            self.release()

    def acquire(self):
        with self.client.post(
            "/api/v1/licenses/acquire", json={"hardware_id": self.machine}, catch_response=True
        ) as answer:
            if answer.status_code == 200:
                self.session_id, self.heartbeats = answer.json()["session_id"], 0
            else:
                answer.failure(_why(answer))

    def heartbeat(self):
        with self.client.post(
            "/api/v1/licenses/heartbeat", json={"session_id": self.session_id}, catch_response=True
        ) as answer:
            if answer.status_code == 200:
                self.heartbeats += 1
                return
            answer.failure(_why(answer))
            if answer.status_code in (403, 404, 410):
                self.session_id = None

    def release(self):
        with self.client.post(
            "/api/v1/licenses/release", json={"session_id": self.session_id}, catch_response=True
        ) as answer:
            if answer.status_code == 200:
                self.session_id = None
            else:
                answer.failure(_why(answer))

    def on_stop(self):
        if self.session_id is not None:
            self.release()


def _why(answer) -> str:
    """A problem's code, else the status."""
    try:
        return f"{answer.status_code} {answer.json()['code']}"
    except (ValueError, KeyError, TypeError):
        return str(answer.status_code)


@events.quitting.add_listener
def judge(environment, **_):
    """The plan's goal: p99 under 500 ms, fewer than 1 % errors."""
    total = environment.stats.total
    p99 = total.get_response_time_percentile(0.99) or 0
    missed = total.num_requests == 0 or total.fail_ratio >= ERROR_RATE_LIMIT or p99 >= P99_LIMIT_MS
    print(f"p99 {p99:.0f} ms, errors {total.fail_ratio:.2%}: goal {'missed' if missed else 'met'}")
    if missed:
        environment.process_exit_code = 1
