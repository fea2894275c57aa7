"""Mints or verifies JWTs with PyJWT.

Reads one JSON job on standard input and writes one JSON answer: {"mint": [...]}
is answered with tokens, {"verify": [...]} with sub, or with null for a refusal.
"""

import json
import sys

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key


def mint(task):
    if "pem" in task:
        key = load_pem_private_key(task["pem"].encode(), password=None)
    else:
        key = jwt.PyJWK.from_dict(task["jwk"]).key
    return jwt.encode(task["claims"], key, algorithm=task["alg"], headers={"kid": task["kid"]})


def verify(task):
    if "jwks" in task:
        kid = jwt.get_unverified_header(task["token"])["kid"]
        key = jwt.PyJWKSet.from_dict(task["jwks"])[kid].key
    else:
        key = jwt.PyJWK.from_dict(task["jwk"]).key
    try:
        claims = jwt.decode(
            task["token"],
            key,
            algorithms=[task["alg"]],
            audience=task["aud"],
            issuer=task["iss"],
            options={"require": ["exp", "iat"]},
        )
    except jwt.InvalidTokenError:
        return None
    return claims["sub"]


job = json.load(sys.stdin)
json.dump(
    {
        "mint": [mint(task) for task in job.get("mint") or []],
        "verify": [verify(task) for task in job.get("verify") or []],
    },
    sys.stdout,
)
