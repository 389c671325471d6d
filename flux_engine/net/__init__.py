"""The only doors to an address that a stranger named: a bounded download from one or post to one.

Every URL of a client, and every webhook, is opened through here, and a test holds that.

fetch      a download                        post       a webhook
door       the guard of both                 addresses  which of them are public
urls       a URL kept as it is written       pages      a page that shows a file -> the file
status     what one other than 200 means     content    what arrived in place of a file

Nothing here knows of jobs, pictures or LoRAs.
"""
