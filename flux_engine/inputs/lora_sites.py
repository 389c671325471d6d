"""The sites that LoRAs are downloaded from: addresses, tokens, and what their refusals mean.

A site that wants a login often answers with a page and status 200. `Download` says what that means for its site.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from flux_engine.errors import InputFetchFailed
from flux_engine.inputs.lora_hub import HUB_URL, HubFile
from flux_engine.inputs.lora_source import HUB_HOSTS, CivitaiLora, UrlLora
from flux_engine.net.content import Content
from flux_engine.net.fetch import Token
from flux_engine.settings import LORA_FILE_HOSTS, Settings

CIVITAI_URL: Final = "https://civitai.com"
CIVITAI_FILE_HOSTS: Final = (  # where its downloads lead: its own hosts, and its account at a store of files
    *("civitai.com", "*.civitai.com", "*.5ac0637cfd0766c97916cefa3764fbdf.r2.cloudflarestorage.com"),
)
HUB_FILE_HOSTS: Final = ("huggingface.co", "*.huggingface.co", "*.hf.co")
PEFT_FILE: Final = "/adapter_model.safetensors"
PEFT_CONFIG: Final = "/adapter_config.json"


@dataclass(frozen=True, slots=True)
class Download:
    """A file to fetch. It is remembered under `key`, for `max_age_s` seconds if it may change; `what` is its name in
    messages. A PEFT config may lie at `config_url`.
    """

    key: str
    url: str
    hosts: tuple[str, ...]
    site: Literal["Civitai", "the hub", "the URL"]
    what: str = "the download"
    token: Token | None = None
    variable: str | None = None  # the setting that holds the token
    config_url: str | None = None
    max_age_s: float | None = None

    def refused(self, error: InputFetchFailed) -> InputFetchFailed:
        """`error` with what to do about it on this site."""
        if self.site == "Civitai" and error.status in (404, 410):
            return InputFetchFailed(
                f"Civitai has no {self.what}; send the number behind `modelVersionId` in the version's URL: the one "
                "behind `/models/` is its page",
                status=error.status,
            )
        if error.status in (401, 403) and self.variable is not None:
            return InputFetchFailed(f"{self.site} refuses {self.what}: {self._needed()}", status=error.status)
        if "does not load from" in error.message:
            return InputFetchFailed(f"{error.message}; to allow another, set LORA_HOSTS on this endpoint")
        return error

    def got(self, content: Content) -> InputFetchFailed:
        """The error for an answer in place of the file."""
        if self.site == "the URL":
            return InputFetchFailed(f"the URL leads to {content.text}", retryable=content.may_pass)
        if not (content.asks_for_login or content.may_pass) and self.site == "the hub":
            return InputFetchFailed(f"{self.site} sent {content.text}")
        advice = "send the job again later" if content.may_pass else self._needed()
        return InputFetchFailed(
            f"{self.site} sent {content.what} in place of {self.what}: {advice}", retryable=content.may_pass
        )

    def _needed(self) -> str:
        if self.token is None:
            return f"set {self.variable} on this endpoint"
        return f"{self.variable} of this endpoint is not accepted for it, or its owner restricts who may load it"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSites:
    """Which hosts a LoRA's URL may name, the tokens of this endpoint, and where the two sites are."""

    hosts: tuple[str, ...] = LORA_FILE_HOSTS
    hf_token: SecretStr | None = field(default=None)
    civitai_token: SecretStr | None = field(default=None)
    hub_url: str = HUB_URL
    civitai_url: str = CIVITAI_URL

    @classmethod
    def from_settings(cls, settings: Settings) -> LoraSites:
        """The sites of an endpoint with these settings."""
        return cls(hosts=settings.lora_hosts, hf_token=settings.hf_token, civitai_token=settings.civitai_token)

    def of_civitai(self, source: CivitaiLora) -> Download:
        """A version's file; the query chooses among several, and may bring the client's own token."""
        query = f"?{source.query}" if source.query else ""
        has_own_token = "token" in parse_qs(source.query)
        return Download(
            key=f"civitai:{source.version_id}{query}",
            url=f"{self.civitai_url}/api/download/models/{source.version_id}{query}",
            hosts=(*CIVITAI_FILE_HOSTS, _host(self.civitai_url)),
            site="Civitai",
            what=f"version {source.version_id}",
            token=None if has_own_token else _token(self.civitai_url, self.civitai_token),
            variable="CIVITAI_TOKEN",
        )

    def of_hub(self, repo: str, file: HubFile) -> Download:
        """A file of a repository at one commit."""
        return Download(
            key=f"hub:{repo}@{file.commit}:{file.name}",
            url=file.url,
            hosts=(*HUB_FILE_HOSTS, _host(self.hub_url)),
            site="the hub",
            what=f"`{repo}`",
            token=_token(self.hub_url, self.hf_token),
            variable="HF_TOKEN",
            config_url=file.config_url,
        )

    def of_url(self, source: UrlLora, max_age_s: float) -> Download:
        """A client's URL, whose file may change; the hub's own are opened with its token."""
        is_of_hub = _host(source.url) in (*HUB_HOSTS, _host(self.hub_url))
        path = urlsplit(source.url).path
        is_of_peft = is_of_hub and path.endswith(PEFT_FILE)
        return Download(
            key=source.url,
            url=source.url,
            hosts=self.hosts,
            site="the hub" if is_of_hub else "the URL",
            token=_token(source.url, self.hf_token) if is_of_hub else None,
            variable="HF_TOKEN" if is_of_hub else None,
            config_url=source.url.replace(PEFT_FILE, PEFT_CONFIG, 1) if is_of_peft else None,
            max_age_s=max_age_s,
        )


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()


def _token(url: str, value: SecretStr | None) -> Token | None:
    return Token(host=_host(url), value=value) if value is not None else None
