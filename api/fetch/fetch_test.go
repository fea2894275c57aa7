package fetch

import (
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPublicAddresses(t *testing.T) {
	for address, want := range map[string]bool{
		"93.184.215.14": true, "2606:2800:21f::1": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false,
		"0.0.0.0": false, "224.0.0.1": false, "255.255.255.255": false, "198.18.0.1": false,
		"::1": false, "fe80::1": false, "fc00::1": false, "::ffff:10.0.0.1": false, "64:ff9b::a00:1": false, "2002:a00:1::": false, "::": false,
		"::10.0.0.1": false, "::ffff:0:10.0.0.1": false, "fec0::1": false, "2001::1": false, "2001:db8::1": false, "100::1": false, "3fff::1": false,
		"5f00::1": false, "192.88.99.1": false,
	} {
		if got := isPublic(net.JoinHostPort(address, "443")); got != want {
			t.Errorf("%s is public: %v, want %v", address, got, want)
		}
	}
	if isPublic("example.com:443") {
		t.Error("a name is taken for an address")
	}
}

func TestFurtherAuthorities(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("document")) // the client notices
	}))
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "ca.crt")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := &Client{AllowPrivate: true, CAFile: file}
	get := func() string {
		body, _, err := c.Get(t.Context(), server.URL)
		if err != nil {
			return err.Error()
		}
		return string(body)
	}

	if err := c.Check(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	write("nothing")
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "holds no certificate in PEM") {
		t.Errorf("a file without a certificate: %v", err)
	}
	if got := get(); !strings.Contains(got, "holds no certificate in PEM") {
		t.Errorf("a connection without authorities: %s", got)
	}

	// One client sees what the file has now.
	write(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	if got := get(); got != "document" {
		t.Errorf("with the authority: %s", got)
	}
	if _, _, err := (&Client{AllowPrivate: true}).Get(t.Context(), server.URL); err == nil {
		t.Error("without the file the certificate is believed")
	}
	if _, _, err := (&Client{CAFile: file}).Get(t.Context(), server.URL); !errors.Is(err, ErrPrivate) {
		t.Errorf("an address that is not public: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := get(); !strings.Contains(got, "no such file") {
		t.Errorf("once the file is gone: %s", got)
	}
}
