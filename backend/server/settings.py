"""What a server is told when it starts."""

from __future__ import annotations

import ipaddress

from pydantic import Field, SecretStr

from backend.recipe.base import Config


class Settings(Config):
    """Where it listens, who may ask, and how much at once."""

    model: str = Field(min_length=1, max_length=200, description="the name by which clients ask for the model")
    host: str = Field(
        "127.0.0.1", min_length=1, description="address to listen on; others reach only what is not local"
    )
    port: int = Field(8000, ge=0, le=65_535, description="0 is any that is free")
    api_key: SecretStr | None = Field(None, description="the bearer token that clients must send; None asks for none")
    max_body_bytes: int = Field(2_000_000, ge=1_000, le=1_000_000_000, description="of one request")
    max_requests: int = Field(64, ge=1, le=10_000, description="texts that are written or wait at once")
    max_choices: int = Field(16, ge=1, le=1_000, description="texts that one request may ask for: prompts times n")
    body_s: float = Field(30.0, gt=0, description="a request's body must have come by then")
    stall_s: float = Field(60.0, gt=0, description="a client that takes nothing for so long is hung up on")
    ping_s: float = Field(10.0, gt=0, description="a stream with nothing to say sends a comment so often")
    grace_s: float = Field(30.0, ge=0, description="when it is told to stop, begun answers may take so long")

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
