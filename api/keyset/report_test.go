package keyset_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/api/keyset"
)

func someReport() keyset.Report {
	at := time.Unix(1_800_000_000, 0).UTC()
	return keyset.Report{UID: "0b7c", Sequence: 7, Keys: []keyset.KeyReport{
		{KeyID: "k3", Thumbprint: "3JH"},
		{KeyID: "k2", Thumbprint: "Nzb", NewestIssuedAt: at.Add(-3 * time.Second), LastSeenAt: at, Late: 2, LateIssuer: "https://auth.shop.example"},
		{KeyID: "k1", Refused: true},
	}}
}

func TestReportComesBack(t *testing.T) {
	for name, want := range map[string]keyset.Report{
		"with keys":    someReport(),
		"without keys": {UID: "u", Keys: []keyset.KeyReport{}},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := want.Encode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := keyset.DecodeReport(raw)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
		})
	}
	raw, err := someReport().Encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"uid":"0b7c","sequence":7,"keys":[{"keyID":"k3","thumbprint":"3JH"},` +
		`{"keyID":"k2","thumbprint":"Nzb","newestIssuedAt":"2027-01-15T07:59:57Z","lastSeenAt":"2027-01-15T08:00:00Z","late":2,"lateIssuer":"https://auth.shop.example"},` +
		`{"keyID":"k1","refused":true}]}`
	if string(raw) != want {
		t.Errorf("got %s", raw)
	}
}

func TestReportIsRefused(t *testing.T) {
	const secret = "c2VjcmV0c2VjcmV0"
	key := func(fields string) string { return `{"uid":"u","sequence":1,"keys":[{"keyID":"a"},{` + fields + `}]}` }
	long := strings.Repeat("x", 257)
	for name, raw := range map[string]string{
		"nothing":                     ``,
		"no JSON":                     secret,
		"a list":                      `[]`,
		"null":                        `null`,
		"no uid":                      `{"sequence":1,"keys":[]}`,
		"a long uid":                  `{"uid":"` + long + `","sequence":1,"keys":[]}`,
		"a negative sequence":         `{"uid":"u","sequence":-1,"keys":[]}`,
		"a sequence that is no whole": `{"uid":"u","sequence":1.5,"keys":[]}`,
		"a sequence beyond int64":     `{"uid":"u","sequence":9223372036854775808,"keys":[]}`,
		"something behind it":         `{"uid":"u","sequence":1,"keys":[]} {}`,
		"an unknown member":           `{"uid":"u","sequence":1,"keys":[],"` + secret + `":1}`,
		"an unknown member of a key":  key(`"keyID":"b","` + secret + `":1`),
		"no key ID":                   key(`"thumbprint":"x"`),
		"a long key ID":               key(`"keyID":"` + long + `"`),
		"a key twice":                 key(`"keyID":"a"`),
		"a long thumbprint":           key(`"keyID":"b","thumbprint":"` + long + `"`),
		"a time that is none":         key(`"keyID":"b","lastSeenAt":"` + secret + `"`),
		"a negative number of late":   key(`"keyID":"b","late":-1`),
		"too many late":               key(`"keyID":"b","late":101`),
		"a long issuer":               key(`"keyID":"b","lateIssuer":"` + strings.Repeat("x", 513) + `"`),
		"too many keys":               `{"uid":"u","sequence":1,"keys":[` + strings.Repeat(`{"keyID":"a"},`, keyset.MaxReportKeys) + `{"keyID":"a"}]}`,
		"too many bytes":              `{"uid":"u","sequence":1,"keys":[]` + strings.Repeat(" ", keyset.MaxReportBytes) + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := keyset.DecodeReport([]byte(raw))
			if !errors.Is(err, keyset.ErrMalformedReport) || got.UID != "" || got.Keys != nil {
				t.Fatalf("got %+v, %v", got, err)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("error quotes its input: %v", err)
			}
		})
	}
}

func TestReportKeepsToItsBounds(t *testing.T) {
	for name, id := range map[string]string{"many keys": "k%d", "long keys": strings.Repeat("k", 240) + "%d"} {
		t.Run(name, func(t *testing.T) {
			r := keyset.Report{UID: "u", Keys: []keyset.KeyReport{{KeyID: "in force"}}}
			for i := range 2 * keyset.MaxReportKeys {
				r.Keys = append(r.Keys, keyset.KeyReport{KeyID: fmt.Sprintf(id, i), Refused: true, LateIssuer: strings.Repeat("<", 80)})
			}
			raw, err := r.Encode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := keyset.DecodeReport(raw)
			if err != nil {
				t.Fatal(err)
			}
			if got.Keys[0].KeyID != "in force" || len(got.Keys) < 500 {
				t.Errorf("%d keys are left, the first is %s", len(got.Keys), got.Keys[0].KeyID)
			}
		})
	}
}

// FuzzDecodeReport: nothing panics, and what is read comes back.
func FuzzDecodeReport(f *testing.F) {
	raw, err := someReport().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"uid":"u","sequence":1,"keys":null}`))
	f.Add([]byte(`{"uid":"\ud800","sequence":0,"keys":[{"keyID":"\u0000","lastSeenAt":"2027-01-15T08:00:00+01:00"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := keyset.DecodeReport(raw)
		if err != nil {
			if !errors.Is(err, keyset.ErrMalformedReport) {
				t.Fatalf("%v does not wrap ErrMalformedReport", err)
			}
			return
		}
		once, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := keyset.DecodeReport(once)
		if errors.Is(err, keyset.ErrMalformedReport) && len(once) > len(raw) {
			return // texts that JSON spells longer may be too long then
		}
		if err != nil {
			t.Fatal(err)
		}
		twice, err := again.Encode()
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s comes back as %s (%v)", once, twice, err)
		}
	})
}
