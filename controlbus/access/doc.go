// Package access says who may do what: users, roles, sessions, API tokens, the
// credentials of agents, and the audit trail of all that.
//
// Everything that is served declares an Action. A request carries an Identity in
// its context (With, From), made by Service from a session cookie or a bearer
// token; the identity's grants say which actions it may do on which channels of
// which environments. One table, in role.go, says what a role may do. Who has no
// grant may nothing.
//
//	request ─ cookie or bearer ─▶ Service ─▶ Identity ─▶ Can(action, env, channel)
//	                                 │                └▶ Scope(action): what reads are limited to
//	                                 ▼
//	                           Store (storage/state)
//
// Secrets are kept as hashes: passwords by argon2id, sessions and tokens, which
// are 32 random bytes, by SHA-256. Each change is written in one transaction with
// its audit event. Changed tells those who hold something open that an identity
// may no longer be what it was.
//
// Signing in over OIDC is package access/oidc; cookies, redirects and pages are
// package ui. cmd/signalbox makes the Service and hands it to both.
package access
