"""The status page: one file of HTML, style and script, offline, live by server-sent events.

`sections` says what is on it, `broadcast` tells it once a second to whoever looks, `document` is the page itself.
Nothing here changes anything, and of a job only jid, type, queue and the reason of its refusal are shown.
"""
