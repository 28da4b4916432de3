"""The main job in half a minute: producers far from Faktory, without the sidecar and with it.

`embedded` is a Faktory server in memory, `wan` a far-away network, `producers` the pyfaktory programs that the demo
runs in processes of their own, `show` the demo itself.
"""
