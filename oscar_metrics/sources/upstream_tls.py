"""TLS towards an upstream: whose certificates are believed, and what we show of ourselves.

There is no way to turn verification off.
"""

from __future__ import annotations

import ssl

import httpx
import msgspec

from oscar_metrics.errors import SettingsError
from oscar_metrics.sources.watched_files import WatchedFiles, text_of


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files in PEM form, read again when they change; blank for none."""

    # The authorities that may vouch for the upstream, and no others; blank: the public ones.
    ca_file: str = ""
    # Our own certificate, with what leads to its authority, where the upstream asks for one.
    certificate_file: str = ""
    # Its key, without a passphrase; blank: it is in `certificate_file`.
    key_file: str = ""


class Tls:
    """The TLS context of one upstream, or of several alike.

    `prefix` is what the names of its settings begin with (`OSCAR_METRICS_LOKI_TLS`); the
    constructor raises SettingsError naming the one that is of no use.
    """

    def __init__(self, settings: TlsSettings, prefix: str) -> None:
        self._settings = settings
        self._prefix = prefix
        files = (settings.ca_file, settings.certificate_file, settings.key_file)
        self._watched = WatchedFiles(files, self._read)

    async def context(self) -> ssl.SSLContext:
        """The same one until a file has changed; raises SettingsError where one is of no use."""
        return await self._watched.current()

    def _read(self) -> ssl.SSLContext:
        settings = self._settings
        if settings.ca_file:
            context = self._trusting(settings.ca_file)
        else:
            context = httpx.create_ssl_context(trust_env=False)
        if settings.certificate_file:
            self._show_certificate(context)
        elif settings.key_file:
            raise SettingsError(
                f"{self._prefix}_KEY_FILE",
                f"set without {self._prefix}_CERTIFICATE_FILE: expected both",
            )
        return context

    def _trusting(self, file: str) -> ssl.SSLContext:
        setting = f"{self._prefix}_CA_FILE"
        text_of(setting, file)
        # Given a file the context trusts it alone; with none it would load the system's.
        try:
            context = ssl.create_default_context(cafile=file)
        except (OSError, ValueError):
            context = None
        if context is None or not context.cert_store_stats()["x509"]:
            raise SettingsError(
                setting, f"{file}: expected certificates of authorities in PEM form"
            ) from None
        return context

    def _show_certificate(self, context: ssl.SSLContext) -> None:
        settings = self._settings
        certificate, key = (f"{self._prefix}_{name}_FILE" for name in ("CERTIFICATE", "KEY"))
        text_of(certificate, settings.certificate_file)
        if settings.key_file:
            text_of(key, settings.key_file)
        named = key if settings.key_file else certificate
        try:
            context.load_cert_chain(
                settings.certificate_file, settings.key_file or None, password=_no_passphrase
            )
        except _Locked:
            raise SettingsError(named, "the key has a passphrase: expected one without") from None
        except ssl.SSLError as exc:
            if exc.reason == "KEY_VALUES_MISMATCH":
                expected = f"the key that belongs to the certificate in {certificate}"
                raise SettingsError(named, f"expected {expected}") from None
            raise SettingsError(
                certificate,
                f"expected a certificate, and in {named} its key, in PEM form",
            ) from None
        except OSError:
            # Gone since it was looked at.
            raise SettingsError(certificate, "cannot be read any more") from None


class _Locked(Exception):
    """A key has a passphrase."""


def _no_passphrase() -> str:
    # Without this OpenSSL would ask for it at the terminal.
    raise _Locked
