"""Who is asking, and what they may do.

    manager        SecurityManager: a request's headers -> a principal with scopes
    credential     the one credential of a request
    keys           API keys: their form, their hash, their record
    key_store      the records in Redis, and what was revoked
    tokens, jwks   JSON Web Tokens, and an issuer's public keys
    signed_paths   links of minutes for an <img> or a <video>
    logins         failed logins by address
    headers        what every answer carries, and which origins may call
    secret, terms  the gateway's secret, and what the operator has set

Strangers come in here. Nothing else of the gateway looks at a credential.
"""
