"""Every reason code that an operator can meet, with what it means and what to do.

A code is one word in logs, twins, metrics and stored rows. Each has a page in `docs/runbooks/` once it has more to say
than its line here.
"""

from typing import Final, NamedTuple

from contract.bundle import ACTIONS


class Reason(NamedTuple):
    meaning: str
    action: str


REASONS: Final[dict[str, Reason]] = {
    # Messages that can never succeed (rejected lane).
    "not_json": Reason("the body is not UTF-8 JSON", "look at the stored bytes; mend the sender"),
    "not_a_reading": Reason("the body, or an element of its array, is not a JSON object", "mend the sender"),
    "bad_shape": Reason("the message names a known schema but does not follow it", "compare versions of both modules"),
    "schema_unsupported": Reason("the message's schema version is newer than this module", "update this module"),
    "bad_gzip": Reason("contentEncoding says gzip, the body is not", "mend the sender"),
    "too_large": Reason("the row or inflated body exceeds what may travel", "send smaller messages"),
    "wrong_input": Reason("a message came in on an input that this module does not have", "correct the route"),
    "internal_error": Reason("the module failed on this message three times", "report the logged error with the bytes"),
    "failed_attempt": Reason(
        "the module failed on a message for an unknown reason; it tries again, three times in all",
        "none yet: the message ends in the rejected lane if it fails again",
    ),
    "out_of_memory": Reason(
        "an allocation failed; the message is held and tried again", "give the module or the machine more memory"
    ),
    # Settings and twins.
    "bad_settings": Reason(
        "the desired properties are refused whole", "correct the named key and patch the twin again"
    ),
    "no_settings": Reason(
        "the module has no settings yet that it can start with; nothing is acknowledged",
        "see the reported settings for the key that was refused",
    ),
    "unknown_setting": Reason("a desired property that this version does not know is ignored", "check its spelling"),
    # Model bundles (the actions are those of contract.bundle).
    "no_model": Reason(
        "no usable model is there; `when_no_model` says what happens", "put a bundle where the twin says"
    ),
    "bundle_unreadable": Reason("the bundle is no folder or zip with a manifest", ACTIONS["bundle_unreadable"]),
    "bundle_manifest": Reason("a key of manifest.json is wrong", ACTIONS["bundle_manifest"]),
    "bundle_files": Reason("a file is missing, unlisted or differs from its digest", ACTIONS["bundle_files"]),
    "bundle_parity": Reason("the model does not give the golden scores", ACTIONS["bundle_parity"]),
    "bundle_model": Reason("the ONNX model does not load or fit its manifest", ACTIONS["bundle_model"]),
    "bundle_digest": Reason("the bundle is not the one that `bundle_digest` pins", ACTIONS["bundle_digest"]),
    # Policy.
    "no_policy": Reason(
        "there is no valid compliance policy, so nothing is acknowledged and nothing leaves",
        "mount a policy file, or correct the one that is reported (docs/policy.md)",
    ),
    "policy_refused": Reason(
        "the policy file cannot be taken; the policy before it stays in force",
        "correct the file at the place named, or the setting policy_sha256",
    ),
    # Links and credentials.
    "hub_unreachable": Reason("edgeHub does not answer", "check that edgeHub runs; the module tries again for ever"),
    "hub_refused": Reason("edgeHub refused the identity or its token", "check the module's identity and the clock"),
    "hub_untrusted": Reason(
        "edgeHub's certificate does not end in the trust bundle, or names another host",
        "check the edge device's certificates and IOTEDGE_GATEWAYHOSTNAME",
    ),
    "hub_slow": Reason(
        "edgeHub did not acknowledge a message within a minute; the module connects again and sends it again",
        "check edgeHub's load and disk",
    ),
    "outbox_full": Reason(
        "too many bytes wait for edgeHub; nothing more is taken in until they shrink",
        "check that edgeHub runs; the limit is EDGEWEIR_OUTBOX_MAX_BYTES",
    ),
    "workload_unreachable": Reason("the workload API does not answer", "check iotedge system status"),
    # Disk.
    "disk_full": Reason("no space is left; nothing is acknowledged until there is", "free or add space"),
    "disk_error": Reason("the disk refuses to write; nothing is acknowledged", "check the volume"),
    "sequence_gap": Reason("messages of another module are missing; a loss record is written", "see the loss record"),
    # Storage (the uploader tries again for ever; the rows wait in its spool).
    "spool_full": Reason(
        "the spool has reached spool_max_bytes; every lane stops", "mend the destination that lags, or raise the limit"
    ),
    "no_destination": Reason("a lane goes nowhere, so its rows wait", "name the lane in a destination"),
    "destination_unknown": Reason(
        "batches wait for a destination that the settings no longer name", "name it again, under the same name"
    ),
    "storage_unreachable": Reason("the storage service does not answer", "check the link, its address and its port"),
    "cut_failed": Reason("rows cannot be made a batch; they stay in the spool", "report the logged error"),
    "folder_full": Reason(
        "a folder that is a destination has no space left", "free or add space; it goes on by itself"
    ),
    "folder_error": Reason("a folder that is a destination refuses to write", "check the volume"),
    "storage_error": Reason("the storage service answers with an error", "look the code up in its documentation"),
    "auth_refused": Reason("the storage service refuses the credential", "replace the mounted file; no restart needed"),
    "clock_skew": Reason("refused, and this clock is more than five minutes off", "set the machine's clock"),
    "credential_missing": Reason("the credential's file is missing, empty or unusable", "mount it"),
    "container_missing": Reason("the container is missing and may not be made", "make it, or allow making it"),
    "container_being_deleted": Reason("the container is being deleted", "wait, or name another"),
    "name_taken": Reason(
        "another blob has a batch's name: a restored disk, or another writer; it goes on under a new spool id",
        "compare both blobs",
    ),
}
