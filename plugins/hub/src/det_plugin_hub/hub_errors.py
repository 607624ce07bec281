"""What the Hub refuses, as errors that say what to do. Imports huggingface_hub only when there is something to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from det_core.errors import DetError

SIGN_IN = "sign in with `hf auth login`, or set HF_TOKEN to an access token"
NO_ACCESS = (401, 403)


class HubError(DetError):
    """The Hub, or a repository on it, cannot be used."""


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Inside, errors of huggingface_hub become `HubError`.

    what: the beginning of the message, such as the address.
    """
    from huggingface_hub import constants, errors

    http_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]  # of the HTTP library, also for no connection
    try:
        yield
    except errors.GatedRepoError:
        raise HubError(f"{what}: its owner grants access on request; ask for it on its page, and {SIGN_IN}") from None
    except errors.RepositoryNotFoundError:
        raise HubError(
            f"{what}: there is no such repository, or it is private; check the name, or {SIGN_IN} that may read it"
        ) from None
    except errors.RevisionNotFoundError:
        raise HubError(f"{what}: the repository has no such branch, tag or commit") from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise HubError(f"{what}: {_unreachable(error, constants.HF_HUB_OFFLINE, constants.ENDPOINT)}") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        why = f"; this is not allowed without a token that may write there: {SIGN_IN}" if status in NO_ACCESS else ""
        raise HubError(f"{what}: the Hub answered {_first_line(error)}{why}") from None
    except http_error as error:
        raise HubError(f"{what}: {_unreachable(error, False, constants.ENDPOINT)}") from None


def _unreachable(error: Exception, offline: bool, endpoint: str) -> str:
    if offline:
        return "it is not in the local cache, and HF_HUB_OFFLINE is set; unset it to download"
    cause = error.__cause__ or error
    return f"no connection to {endpoint}, and it is not in the local cache ({_first_line(cause)})"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
