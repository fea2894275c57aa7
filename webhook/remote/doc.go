// Package remote keeps the keys of issuers of others fresh: it fetches discovery
// documents and JWK Sets in the background and puts what they show into the
// authz.Store. No request ever waits for it.
//
//	Store.Origins ──► round ──► fetch ──► parse ──► Store.SetOrigin
//	      ▲                                             │
//	      └── a token with an unknown kid wakes it ◄────┘
//
// What is fetched counts until it is fetched again: after Cache-Control's
// max-age, within bounds. A source that fails keeps its keys for MaxStale, and
// then has none. A key that a source shows no more is gone with the next fetch.
//
// Anybody who may write an AccessPolicy may name sources that hang, so the
// namespaces of policies take turns to be fetched for; see line.
package remote
