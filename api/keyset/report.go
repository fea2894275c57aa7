package keyset

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// What controller and gates agree on for reports.
const (
	// GatesSecretName is the Secret, in Keywright's namespace, with the one
	// certificate (tls.crt, tls.key) that controller and gates show to each
	// other and trust, made and renewed by the controller.
	GatesSecretName = "keywright-gates"
	// GateServerName is the DNS name in that certificate.
	GateServerName = "keywright-gate"
	// KeysetsPath is followed by namespace/name of a SigningKey.
	KeysetsPath = "/keysets/"
)

// Report is what a gate says of the key set of one SigningKey.
type Report struct {
	// UID of the SigningKey that the gate has loaded.
	UID string `json:"uid"`
	// Sequence is the largest that the gate has seen in its status.
	Sequence int64 `json:"sequence"`
	// Keys are those in force, and those that are refused for ever.
	Keys []KeyReport `json:"keys"`
}

// KeyReport is what a gate says of one key.
type KeyReport struct {
	KeyID string `json:"keyID"`
	// Thumbprint of the public half (RFC 7638); empty with HS*.
	Thumbprint string `json:"thumbprint,omitempty"`
	// Refused says that it retired or was revoked: whatever status says, this
	// gate never accepts it again.
	Refused bool `json:"refused,omitempty"`
	// NewestIssuedAt is the newest iat, and LastSeenAt the time, of tokens
	// that passed.
	NewestIssuedAt time.Time `json:"newestIssuedAt,omitzero"`
	LastSeenAt     time.Time `json:"lastSeenAt,omitzero"`
	// Late is how many subjects had tokens that were signed when no signer
	// should have had the key any more (at most 100 are counted), and
	// LateIssuer the iss of the last one.
	Late       int    `json:"late,omitempty"`
	LateIssuer string `json:"lateIssuer,omitempty"`
}

// ErrMalformedReport says that a report cannot be read.
var ErrMalformedReport = errors.New("malformed report")

// maxReportKeys is how many keys a report may tell of.
const maxReportKeys = 4096

// DecodeReport reads a report. What it does not know is of a newer gate.
func DecodeReport(raw []byte) (Report, error) {
	var r Report
	if json.Unmarshal(raw, &r) != nil || r.UID == "" || r.Sequence < 0 || len(r.Keys) > maxReportKeys {
		return Report{}, ErrMalformedReport
	}
	for _, k := range r.Keys {
		if k.KeyID == "" {
			return Report{}, fmt.Errorf("%w: a key without an ID", ErrMalformedReport)
		}
	}
	return r, nil
}
