"""The HTTP edge: jobs by `POST`, problem documents for all that goes wrong, documentation that needs no network.

A *request* comes in through the *edge* (`edge`): the *guard* decides who may speak, the *bounds* how much and how
slowly, and one of the *routes* (`jobs`) answers. A wrong request is a *problem* (RFC 9457). What listens and speaks
HTTP/1.1 is Hypercorn's trio worker (`server`), with limits of ours around it. `app` puts these together.

    server -> edge -> guard, bounds -> routes: jobs -> admission -> intake
"""
