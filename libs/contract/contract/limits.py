"""Sizes that every part keeps to, in bytes.

edgeHub closes the connection on a packet above 262,144 bytes and silently drops a message whose properties and body
exceed it together, so bodies stay well below and the check is made before publishing.
"""

PACKET_LIMIT_BYTES = 262_144
BODY_LIMIT_BYTES = 240 * 1024
# A rejected message's original bytes travel base64-encoded (4/3 of their size) inside a JSON body.
REJECTED_PART_BYTES = 160 * 1024
# What a gzip body may inflate to; a larger one is rejected, so that a few bytes cannot fill the memory.
INFLATED_LIMIT_BYTES = 8 * 1024 * 1024
