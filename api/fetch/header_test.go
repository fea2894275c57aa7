package fetch

import (
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAnswersWithALargeHeaderAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		bytes int
		fails bool
	}{
		"as sites have":  {bytes: 32 << 10},
		"over the bound": {bytes: 80 << 10, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			site := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("X-Padding", strings.Repeat("a", tc.bytes))
				_, _ = w.Write([]byte("{}"))
			}))
			defer site.Close()
			roots := x509.NewCertPool()
			roots.AddCert(site.Certificate())
			client := &Client{AllowPrivate: true, Roots: roots}
			_, _, err := client.Get(t.Context(), site.URL)
			if (err != nil) != tc.fails {
				t.Errorf("got %v", err)
			}
			if err != nil && len(err.Error()) > 200 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}
