"""What a cluster's head says of itself, asked before anything is entrusted to it.

Ray itself tries for 20 seconds to minutes, and then says the same of a wrong token, a frozen head and a port
of something else. One question with a time limit tells them apart.
"""

from __future__ import annotations

import json
import os
import platform
from typing import Any

import grpc
import ray
from ray._common.tls_utils import load_certs_from_env
from ray._common.usage.usage_constants import CLUSTER_METADATA_KEY
from ray._private.authentication.authentication_token_setup import _enable_token_auth
from ray._private.ray_constants import KV_NAMESPACE_CLUSTER
from ray.core.generated import gcs_service_pb2

from mtrl.errors import ConfigError

from .ray_start import own_token

ANSWER_SECONDS = 5.0
"""How long a head may take to answer."""
_MESSAGES: Any = gcs_service_pb2
_METHOD = "/ray.rpc.InternalKVGcsService/InternalKVGet"


def token_error(place: str) -> ConfigError:
    """The cluster at `place` asks for a token that this process has not."""
    shown = own_token()
    came = f"the one found here ({len(shown)} characters) is another" if shown else "none was found here"
    return ConfigError(
        f"the Ray cluster at {place} asks for its token, and {came}. On the head run: ray get-auth-token; "
        "here set RAY_AUTH_TOKEN to what it prints, or write it to ~/.ray/auth_token (mode 600)"
    )


def require_versions(place: str, ray_version: str, python_version: str = "") -> None:
    """Raises ConfigError for a head of another version of Ray than this process, or of another Python."""
    pairs = [("Ray", ray_version, ray.__version__)]
    if python_version:
        pairs.append(("Python", python_version, platform.python_version()))
    wrong = [(name, theirs, own) for name, theirs, own in pairs if theirs != own]
    if wrong:
        found = " and ".join(f"{name} {theirs}, this process {name} {own}" for name, theirs, own in wrong)
        raise ConfigError(
            f"the head at {place} runs {found}; a cluster takes exactly its own. Install the same on both "
            "sides, as with the image of deploy/Dockerfile, or start the head again with this environment"
        )


def require_head(address: str, place: str) -> None:
    """Raises ConfigError unless a head at `address` (host:port) answers, lets us in and has our versions.

    `place` is how the user named it. Takes at most `ANSWER_SECONDS` a question. Where the head asks for a
    token, this process sends it from now on, which Ray leaves to RAY_AUTH_MODE=token.
    """
    token = own_token()
    found = _metadata(address, place, "")
    if found is None:
        found = _metadata(address, place, token) if token else None
        if found is None:
            raise token_error(place)
        os.environ["RAY_AUTH_TOKEN"] = token
        _enable_token_auth()
    require_versions(place, str(found["ray_version"]), str(found["python_version"]))


def _metadata(address: str, place: str, token: str) -> dict[str, object] | None:
    """What the head says of its cluster; None where it refuses the token."""
    headers = (("authorization", f"Bearer {token}"),) if token else ()
    with _channel(address) as channel:
        ask = channel.unary_unary(
            _METHOD,
            request_serializer=_MESSAGES.InternalKVGetRequest.SerializeToString,
            response_deserializer=_MESSAGES.InternalKVGetReply.FromString,
        )
        request = _MESSAGES.InternalKVGetRequest(key=CLUSTER_METADATA_KEY, namespace=KV_NAMESPACE_CLUSTER)
        try:
            reply = ask(request, timeout=ANSWER_SECONDS, metadata=headers)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
                return None
            raise ConfigError(
                f"something listens at {place} and does not answer as the head of a Ray cluster within "
                f"{ANSWER_SECONDS:.0f} s ({error.code().name}). Give the address that `ray start --head` "
                "printed, with the port of the cluster (6379 by default), not of the dashboard (8265)"
            ) from error
    found: dict[str, object] = json.loads(reply.value)
    return found


def _channel(address: str) -> grpc.Channel:
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return grpc.insecure_channel(address)
    chain, key, authority = load_certs_from_env()
    credentials = grpc.ssl_channel_credentials(
        certificate_chain=chain, private_key=key, root_certificates=authority
    )
    return grpc.secure_channel(address, credentials)
