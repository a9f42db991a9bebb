"""The wire: reads chat completions, and answers or fails them as the desk says."""

from __future__ import annotations

import json
from typing import Final

from tests.workflows.gemini_server import answers
from tests.workflows.gemini_server.answers import Asked, Json
from tests.workflows.gemini_server.billing import answering, bill
from tests.workflows.gemini_server.desk import Call
from tests.workflows.gemini_server.handler import Handler
from tests.workflows.gemini_server.script import Fault
from tests.workflows.openai_server import bodies

VERSION: Final = "/v1"
PATH: Final = f"{VERSION}/chat/completions"
BROKEN: Final = frozenset({"timeout", "reset", "redirect"})


class ChatHandler(Handler):
    """Speaks OpenAI's format below ``/v1``."""

    elsewhere = "/v1/elsewhere"

    def do_POST(self) -> None:  # noqa: N802 - the name that http.server looks for
        self._headers = {}
        raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.path != PATH:
            self._send(404, bodies.error_body(f"Invalid URL (POST {self.path})", None))
            return
        body = json.loads(raw)
        call, fault = self.server.desk.begin("chat.completions", str(body.get("model", "")))
        call.request = body
        call.headers = {name.lower(): value for name, value in self.headers.items()}
        given = call.headers.pop("authorization", "").removeprefix("Bearer ")
        try:
            self._reply(call, fault, given)
        finally:
            self.server.desk.end(call)

    def _reply(self, call: Call, fault: Fault, given: str) -> None:
        if given != self.server.desk.key:
            fault = Fault(kind="unauthorized")
        try:
            asked = bodies.read_request(call.request)
        except ValueError as error:
            call.status = 400
            self._send(400, bodies.error_body(str(error), None))
            return
        call.keys = asked.keys
        refused = bodies.refused(call.request)
        if refused is not None:
            call.status, call.fault = 400, "bad_request"
            self._send(400, bodies.error_body(refused, "unsupported_parameter"))
            return
        call.fault = fault.kind
        self.server.desk.stopping.wait(fault.seconds + self.server.desk.script.latency)
        if fault.kind in BROKEN:
            self._fail(fault)
        elif fault.kind in bodies.ERRORS:
            if fault.kind == "rate_limited" and fault.retry is not None:
                self._headers["Retry-After"] = fault.retry.removesuffix("s")
            call.status, document = bodies.error(fault, given)
            self._send(call.status, document)
        else:
            self._complete(call, fault, asked)

    def _complete(self, call: Call, fault: Fault, asked: Asked) -> None:
        call.status = 200
        if fault.kind == "malformed_body":
            self._send_raw(200, b'{"choices": [{"message": ')
            return
        text, finish = answers.written(fault, asked, [])
        call.answered = answering(call.model, fault)
        usage = self._bill(call, asked, None if fault.kind == "empty" else text)
        document = bodies.completion(text, finish, usage=usage, model=call.answered, fault=fault)
        self._send(200, document)

    def _bill(self, call: Call, asked: Asked, text: str | None) -> Json:
        """What is billed for the call, as the wire has it."""
        script = self.server.desk.script
        bill(call, asked, text, script)
        return {
            "prompt_tokens": call.tokens_in,
            "completion_tokens": call.tokens_out,
            "total_tokens": call.tokens_in + call.tokens_out,
            "prompt_tokens_details": {"cached_tokens": call.cached},
            "completion_tokens_details": {"reasoning_tokens": script.thoughts},
        }
