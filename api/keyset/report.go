package keyset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// What controller and gates agree on for reports.
const (
	// GatesSecretName is the Secret, of type kubernetes.io/tls in Keywright's
	// namespace, with the one certificate (tls.crt, tls.key) that controller
	// and gates show to each other and trust, made and renewed by the
	// controller.
	GatesSecretName = "keywright-gates"
	// GateServerName is the DNS name in that certificate.
	GateServerName = "keywright-gate"
	// KeysetsPath is followed by namespace/name of a SigningKey.
	KeysetsPath = "/keysets/"
)

// Bounds of a report: what is over them is neither written nor read.
const (
	MaxReportBytes = 1 << 20
	MaxReportKeys  = 4096
	// MaxLate is up to how many subjects are counted in KeyReport.Late.
	MaxLate = 100
	// MaxLateIssuer is the length of the longest KeyReport.LateIssuer, in
	// bytes.
	MaxLateIssuer = 512

	maxReportText = 256 // of UIDs, key IDs and thumbprints
)

// Report is what a gate says of the key set of one SigningKey: what it has
// loaded, what it refuses, and what it has seen of tokens. As JSON:
//
//	{"uid": "0b7c…", "sequence": 7, "keys": [
//	  {"keyID": "k3", "thumbprint": "3JH…"},
//	  {"keyID": "k2", "thumbprint": "NzbL…", "newestIssuedAt": "2026-11-24T09:59:58Z", "lastSeenAt": "2026-11-24T10:00:01Z",
//	   "late": 2, "lateIssuer": "https://auth.shop.example"},
//	  {"keyID": "k1", "refused": true}]}
//
// Times are in whole seconds.
type Report struct {
	// UID of the SigningKey that the gate has loaded.
	UID string `json:"uid"`
	// Sequence is the largest that the gate has seen in its status.
	Sequence int64 `json:"sequence"`
	// Keys are those in force, and after them those that are refused for
	// ever, the latest first. Each ID is there once.
	Keys []KeyReport `json:"keys"`
}

// KeyReport is what a gate says of one key.
type KeyReport struct {
	KeyID string `json:"keyID"`
	// Thumbprint of the public half (RFC 7638, SHA-256, base64url); empty
	// with HS*, and of keys that are refused.
	Thumbprint string `json:"thumbprint,omitempty"`
	// Refused says that the key retired or was revoked: whatever status says,
	// this gate never accepts it again.
	Refused bool `json:"refused,omitempty"`
	// NewestIssuedAt is the newest iat, and LastSeenAt the time, of tokens
	// that passed; zero when there was none since the gate was started.
	NewestIssuedAt time.Time `json:"newestIssuedAt,omitzero"`
	LastSeenAt     time.Time `json:"lastSeenAt,omitzero"`
	// Late is how many subjects had tokens that were signed when no signer
	// should have had the key any more: with an iat later than signerLag and
	// twice clockSkew after its deactivation. At most MaxLate are counted.
	Late int `json:"late,omitempty"`
	// LateIssuer is the iss of the last such token, shortened to
	// MaxLateIssuer.
	LateIssuer string `json:"lateIssuer,omitempty"`
}

// ErrMalformedReport says that a report cannot be read.
var ErrMalformedReport = errors.New("malformed report")

// Encode writes the report as JSON. Keys at its end that would bring it over
// MaxReportKeys or MaxReportBytes are left out.
func (r Report) Encode() ([]byte, error) {
	if len(r.Keys) > MaxReportKeys {
		r.Keys = r.Keys[:MaxReportKeys]
	}
	if r.Keys == nil {
		r.Keys = []KeyReport{}
	}
	for {
		raw, err := json.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("encoding the report on SigningKey %s: %w", r.UID, err)
		}
		if len(raw) <= MaxReportBytes || len(r.Keys) == 0 {
			return raw, nil
		}
		r.Keys = r.Keys[:len(r.Keys)/2]
	}
}

// DecodeReport reads a report, strictly: a member that is not known, a text or
// a list that is too long, a key that is there twice and anything behind the
// report are ErrMalformedReport. Controller and gates are of one release;
// while they are not, what a report would show is waited for. The error never
// quotes the report.
func DecodeReport(raw []byte) (Report, error) {
	if len(raw) > MaxReportBytes {
		return Report{}, fmt.Errorf("%w: over %d bytes", ErrMalformedReport, MaxReportBytes)
	}
	var r Report
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if d.Decode(&r) != nil {
		return Report{}, fmt.Errorf("%w: not the JSON of one", ErrMalformedReport)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Report{}, fmt.Errorf("%w: something behind it", ErrMalformedReport)
	}
	switch {
	case r.UID == "" || len(r.UID) > maxReportText:
		return Report{}, fmt.Errorf("%w: uid", ErrMalformedReport)
	case r.Sequence < 0:
		return Report{}, fmt.Errorf("%w: sequence", ErrMalformedReport)
	case len(r.Keys) > MaxReportKeys:
		return Report{}, fmt.Errorf("%w: over %d keys", ErrMalformedReport, MaxReportKeys)
	}
	seen := make(map[string]bool, len(r.Keys))
	for i := range r.Keys {
		k := &r.Keys[i]
		if k.KeyID == "" || len(k.KeyID) > maxReportText || seen[k.KeyID] || len(k.Thumbprint) > maxReportText ||
			k.Late < 0 || k.Late > MaxLate || len(k.LateIssuer) > MaxLateIssuer {
			return Report{}, fmt.Errorf("%w: keys[%d]", ErrMalformedReport, i)
		}
		seen[k.KeyID] = true
	}
	return r, nil
}
