package keyset_test

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/api/keyset"
)

func TestHMACEntryComesBack(t *testing.T) {
	entry := keyset.HMACEntry{Namespace: "shop", Name: "orders", Secrets: map[string][]byte{"b": {0, 1, 0xff}, "a": []byte("x")}}
	raw, err := entry.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := entry.Encode()
	if err != nil || string(again) != string(raw) {
		t.Errorf("equal entries give %s and %s", raw, again)
	}
	got, err := keyset.DecodeHMACEntry(raw, "shop", "orders")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(entry, got); diff != "" {
		t.Errorf("entry (-want +got):\n%s", diff)
	}
}

func TestHMACEntryIsRefused(t *testing.T) {
	const secret = "c2VjcmV0c2VjcmV0c2VjcmV0"
	for name, tc := range map[string]struct{ raw, namespace, name string }{
		"nothing":                    {"", "shop", "orders"},
		"no JSON":                    {secret, "shop", "orders"},
		"a secret that is no base64": {`{"namespace":"shop","name":"orders","secrets":{"a":"` + secret + `!"}}`, "shop", "orders"},
		"another namespace":          {`{"namespace":"shop","name":"orders","secrets":{"a":"` + secret + `"}}`, "other", "orders"},
		"another name":               {`{"namespace":"shop","name":"orders","secrets":{"a":"` + secret + `"}}`, "shop", "other"},
		"no owner":                   {`{"secrets":{"a":"` + secret + `"}}`, "shop", "orders"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := keyset.DecodeHMACEntry([]byte(tc.raw), tc.namespace, tc.name)
			if !errors.Is(err, keyset.ErrMalformedHMACEntry) || got.Secrets != nil {
				t.Fatalf("got %d secrets and error %v, want ErrMalformedHMACEntry", len(got.Secrets), err)
			}
			if strings.Contains(err.Error(), secret[:8]) {
				t.Errorf("error quotes its input: %v", err)
			}
		})
	}
}

func TestHMACEntryNamesAreDistinctAndFitASecret(t *testing.T) {
	long := strings.Repeat("n", 253)
	seen := map[string]bool{}
	for _, of := range [][2]string{{"a", "b"}, {"b", "a"}, {"a-b", "c"}, {"a", "b-c"}, {"a", "b.c"}, {"shop", long}} {
		name := keyset.HMACEntryName(of[0], of[1])
		if seen[name] {
			t.Errorf("%v has the name of another", of)
		}
		seen[name] = true
		if !regexp.MustCompile(`^[-._a-zA-Z0-9]{1,253}$`).MatchString(name) {
			t.Errorf("%v has the name %q", of, name)
		}
	}
}
