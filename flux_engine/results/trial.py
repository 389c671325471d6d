"""A bucket tried at start: one small object stored, read and deleted, so that no picture is made for nothing.

    try_bucket(bucket)       # returns, or raises BucketRefuses or BucketSilent

The store's own error code tells which setting is wrong: key, region, bucket, permission or clock. A refusal is certain
and the same for every worker. A store that does not answer may answer soon: that is tried again here, and what to do
then is the caller's decision (health.py).
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

from flux_engine.results.bucket_address import Bucket, TimeBounds

CONTENT: Final = b"tried by flux-engine at start; safe to delete\n"
BOUNDS: Final = TimeBounds(connect_s=5.0, read_s=10.0, attempts=1)
PAUSES_S: Final = (1.0, 3.0)  # before the second and the third try

_KEY: Final = "BUCKET_ACCESS_KEY_ID is not known to the store, or no longer; set a valid pair of keys"
_SECRET: Final = "BUCKET_SECRET_ACCESS_KEY does not belong to BUCKET_ACCESS_KEY_ID; set both keys anew"  # noqa: S105 - a message
_REGION: Final = "BUCKET_REGION is not the bucket's region; set it to {region}"
_BUCKET: Final = "the bucket does not exist; correct BUCKET_NAME or BUCKET_ENDPOINT_URL, or create it"
_CLOCK: Final = "this machine's clock differs from the store's; correct the clock"
_FULL: Final = "the bucket is full; delete objects or raise its quota"
CAUSES: Final = {
    **dict.fromkeys(("InvalidAccessKeyId", "Unauthorized", "401", "InvalidToken", "ExpiredToken"), _KEY),
    "SignatureDoesNotMatch": _SECRET,
    **dict.fromkeys(("AuthorizationHeaderMalformed", "PermanentRedirect", "301", "InvalidRegionName"), _REGION),
    **dict.fromkeys(("IllegalLocationConstraintException", "InvalidRegion"), _REGION),
    **dict.fromkeys(("NoSuchBucket", "404", "NotFound", "InvalidBucketName"), _BUCKET),
    "RequestTimeTooSkewed": _CLOCK,
    **dict.fromkeys(("QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "ServiceQuotaExceeded"), _FULL),
}
PASSING: Final = ("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "TooManyRequests", "Throttling")
_PLAIN: Final = re.compile(r"[A-Za-z0-9-]{1,60}")

log = logging.getLogger(__name__)


class BucketRefuses(Exception):
    """The store refuses the bucket as it is set. The text names the setting and the mend."""


class BucketSilent(Exception):
    """The store does not answer, or not as a store does. The text names a short reason and no address."""


def try_bucket(bucket: Bucket, *, bounds: TimeBounds = BOUNDS, pauses_s: tuple[float, ...] = PAUSES_S) -> None:
    """Store, read and delete one small object; blocks. Raises BucketRefuses and BucketSilent.

    A bucket that keeps the object is fit: only results of other jobs are ever deleted, and by nobody here.
    """
    from flux_engine.results.bucket_client import BucketClient

    client = BucketClient(bucket, bounds)
    try:
        for pause_s in (*pauses_s, None):
            try:
                _try_once(client.s3, bucket)
            except (BucketRefuses, BucketSilent):  # new keys take seconds until every server of a store knows them
                if pause_s is None:
                    raise
                time.sleep(pause_s)
            else:
                return
    finally:
        client.close()


def _try_once(s3: Any, bucket: Bucket) -> None:
    place = {"Bucket": bucket.name, "Key": f"{bucket.prefix}/trial/{uuid.uuid4().hex}.txt"}
    _told("s3:PutObject", lambda: s3.put_object(**place, Body=CONTENT, ContentType="text/plain"))
    try:
        body = _told("s3:GetObject", lambda: s3.get_object(**place)["Body"].read(len(CONTENT) + 1))
    except BucketRefuses:
        if bucket.public_url is None:  # presigned URLs are signed by this key
            raise
        body = CONTENT
    try:
        _told("s3:DeleteObject", lambda: s3.delete_object(**place))
    except (BucketRefuses, BucketSilent):
        log.warning("bucket keeps the object that tried it: the key may not delete, which results do not need")
    if body != CONTENT:
        raise BucketRefuses("the bucket returns other bytes than were stored; check BUCKET_ENDPOINT_URL")


def _told(permission: str, call: Callable[[], Any]) -> Any:
    """`call` with boto3's errors as one of the two of this module."""
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    try:
        return call()
    except ClientError as error:
        raise _cause(error.response, permission) from None
    except (BotoCoreError, HTTPClientError, OSError) as error:  # their texts hold the endpoint
        raise BucketSilent(
            f"the store does not answer ({type(error).__name__}); check BUCKET_ENDPOINT_URL if this lasts"
        ) from None


def _cause(response: dict[str, Any], permission: str) -> BucketRefuses | BucketSilent:
    error, status = response.get("Error", {}), response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(error.get("Code", ""))
    shown = code if _PLAIN.fullmatch(code) and not code.isdigit() else f"status {status}"
    if code in PASSING or status >= 500 or status == 429:
        return BucketSilent(f"the store answers {shown}; check its status page if this lasts")
    region = str(error.get("Region", ""))
    cause = CAUSES.get(code) or CAUSES.get(str(status)) or f"the key lacks the permission {permission}; grant it"
    named = cause.format(region=region if _PLAIN.fullmatch(region) else "the one that the store shows for it")
    return BucketRefuses(f"{named} ({shown})")
