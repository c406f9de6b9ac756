"""Huawei Cloud's own SDK, unmodified, against a running keysweep.

usage: sdk.py ENDPOINT PROJECT INSTANCE ACCESS SECRET [refusals]

Prints one JSON object with what the SDK made of the answers; the Rust test that starts this asserts on it.
"""

import json
import sys
import time

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException, ServerResponseException
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkdcs.v2 import (
    CreateAutoExpireScanTaskRequest,
    DcsAsyncClient,
    DcsClient,
    ListGroupReplicationInfoRequest,
    ListInstancesRequest,
    ScanExpireKeyRequest,
    ShowExpireAutoScanConfigRequest,
    ShowExpireKeyScanInfoRequest,
    ShowInstanceRequest,
    ShowInstanceTopologyRequest,
    UpdateAutoScanConfigRequestBody,
    UpdateExpireAutoScanConfigRequest,
)

PATIENCE_SECONDS = 60


def client(endpoint, project, access, secret, kind=DcsClient):
    config = HttpConfig.get_default_config()
    config.timeout = (5, 20)
    credentials = BasicCredentials(access, secret, project)
    return (
        kind.new_builder()
        .with_http_config(config)
        .with_credentials(credentials)
        .with_endpoint(endpoint)
        .build()
    )


def refusal(call):
    """What the SDK raises for a call that must be refused."""
    try:
        call()
    except (ClientRequestException, ServerResponseException) as error:
        return {
            "kind": type(error).__name__,
            "status": error.status_code,
            "code": error.error_code,
            "message": error.error_msg,
        }
    return None


def every_operation(call, instance, interval):
    """What the SDK makes of each read and of a configuration that is set and read again."""
    config = UpdateAutoScanConfigRequestBody(
        enable_auto_scan=True,
        first_scan_at="2999-01-01T00:00:00.000Z",
        interval=interval,
        timeout=7200,
        scan_keys_count=20000,
    )
    put = UpdateExpireAutoScanConfigRequest(instance_id=instance, body=config)
    # Signatures change once a second, and one that was used for a change is not taken again: bodies differ.
    bad = UpdateAutoScanConfigRequestBody(enable_auto_scan=True, interval=interval)
    return {
        "list": call("list_instances", ListInstancesRequest(name="cache", name_equal="true")).to_dict(),
        "show": call("show_instance", ShowInstanceRequest(instance_id=instance)).to_dict(),
        "topology": call("show_instance_topology", ShowInstanceTopologyRequest(instance_id=instance)).to_dict(),
        "groups": call("list_group_replication_info", ListGroupReplicationInfoRequest(instance_id=instance)).to_dict(),
        "put": call("update_expire_auto_scan_config", put).to_dict(),
        "config": call("show_expire_auto_scan_config", ShowExpireAutoScanConfigRequest(instance_id=instance)).to_dict(),
        "bad_config": refusal(
            lambda: call(
                "update_expire_auto_scan_config", UpdateExpireAutoScanConfigRequest(instance_id=instance, body=bad)
            )
        ),
        "bad_instance": refusal(lambda: call("show_instance", ShowInstanceRequest(instance_id="not-an-id"))),
    }


def refusals(endpoint, project, instance, access, secret):
    """What both clients raise for a read that the service refuses, or fails to answer."""
    request = ShowInstanceRequest(instance_id=instance)
    config = UpdateAutoScanConfigRequestBody(enable_auto_scan=False)
    put = UpdateExpireAutoScanConfigRequest(instance_id=instance, body=config)
    dcs = client(endpoint, project, access, secret)
    later = client(endpoint, project, access, secret, DcsAsyncClient)
    return {
        "sync": refusal(lambda: dcs.show_instance(request)),
        "async": refusal(lambda: later.show_instance_async(request).result()),
        "change": refusal(lambda: dcs.update_expire_auto_scan_config(put)),
    }


def main():
    endpoint, project, instance, access, secret = sys.argv[1:6]
    if sys.argv[6:] == ["refusals"]:
        print(json.dumps(refusals(endpoint, project, instance, access, secret)))
        return
    dcs = client(endpoint, project, access, secret)
    later = client(endpoint, project, access, secret, DcsAsyncClient)
    created = dcs.create_auto_expire_scan_task(CreateAutoExpireScanTaskRequest(instance_id=instance))

    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        histories = dcs.show_expire_key_scan_info(ShowExpireKeyScanInfoRequest(instance_id=instance))
        mine = [record for record in histories.records if record.id == created.id]
        assert mine, "a created task is in the histories at once"
        if mine[0].status in ("success", "failed"):
            break
        assert time.monotonic() < deadline, f"the task stays {mine[0].status}"
        time.sleep(0.1)

    again = dcs.scan_expire_key(ScanExpireKeyRequest(instance_id=instance))
    page = dcs.show_expire_key_scan_info(ShowExpireKeyScanInfoRequest(instance_id=instance, offset=1, limit=1))
    wrong = client(endpoint, project, access, secret[:-1] + ("a" if secret[-1] != "a" else "b"))
    unknown = client(endpoint, project, "NOSUCHACCESSKEY00000", secret)
    request = ShowExpireKeyScanInfoRequest(instance_id=instance)
    absent = ShowExpireKeyScanInfoRequest(instance_id="0" * 32)
    bad = ShowExpireKeyScanInfoRequest(instance_id=instance, limit=1001)
    print(
        json.dumps(
            {
                "sync": every_operation(lambda name, request: getattr(dcs, name)(request), instance, 1800),
                "async": every_operation(
                    lambda name, request: getattr(later, name + "_async")(request).result(), instance, 3600
                ),
                "created": created.to_dict(),
                "record": mine[0].to_dict(),
                "histories": {"total": histories.total, "count": histories.count},
                "again": again.to_dict(),
                "page": [record.id for record in page.records],
                "wrong_secret": refusal(lambda: wrong.show_expire_key_scan_info(request)),
                "unknown_key": refusal(lambda: unknown.show_expire_key_scan_info(request)),
                "absent_instance": refusal(lambda: dcs.show_expire_key_scan_info(absent)),
                "bad_limit": refusal(lambda: dcs.show_expire_key_scan_info(bad)),
            }
        )
    )


main()
