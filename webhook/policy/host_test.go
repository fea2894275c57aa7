package policy

import (
	"errors"
	"strings"
	"testing"
)

func TestNormalizeHost(t *testing.T) {
	for name, tc := range map[string]struct {
		raw, want string
		wantErr   error
	}{
		"a plain name":                        {raw: "a.example.com", want: "a.example.com"},
		"capitals are folded":                 {raw: "a.B.example.COM", want: "a.b.example.com"},
		"a trailing dot goes":                 {raw: "example.com.", want: "example.com"},
		"a port goes":                         {raw: "example.com:443", want: "example.com"},
		"a trailing dot and a port go":        {raw: "example.com.:8443", want: "example.com"},
		"an empty port goes":                  {raw: "example.com:", want: "example.com"},
		"an underscore is used in the wild":   {raw: "a_b.example.com", want: "a_b.example.com"},
		"an IPv4 address":                     {raw: "192.0.2.1:80", want: "192.0.2.1"},
		"an IPv6 address is made canonical":   {raw: "[2001:DB8:0::1]:443", want: "[2001:db8::1]"},
		"an IPv6 address without a port":      {raw: "[::1]", want: "[::1]"},
		"nothing":                             {raw: "", wantErr: errHostLength},
		"a dot alone":                         {raw: ".", wantErr: errHostLength},
		"two trailing dots":                   {raw: "example.com..", wantErr: errHostLabel},
		"an empty label":                      {raw: "a..b", wantErr: errHostLabel},
		"a leading dot":                       {raw: ".example.com", wantErr: errHostLabel},
		"a list":                              {raw: "a.example.com, b.example.com", wantErr: errHostCharacter},
		"a space":                             {raw: "example.com ", wantErr: errHostCharacter},
		"a user":                              {raw: "a@b.example.com", wantErr: errHostCharacter},
		"a user that looks like a port":       {raw: "a:80@b.example.com", wantErr: errHostPort},
		"two ports":                           {raw: "a:80:80", wantErr: errHostPort},
		"a port that is none":                 {raw: "a:http", wantErr: errHostPort},
		"a wildcard":                          {raw: "*.example.com", wantErr: errHostCharacter},
		"a path":                              {raw: "a/b", wantErr: errHostCharacter},
		"a raw international name":            {raw: "bücher.example", wantErr: errHostCharacter},
		"a line break":                        {raw: "a\r\nb", wantErr: errHostCharacter},
		"a name that is too long":             {raw: strings.Repeat("a", 254), wantErr: errHostLength},
		"an IPv6 address without brackets":    {raw: "2001:db8::1", wantErr: errHostPort},
		"an IPv6 address that is not closed":  {raw: "[::1", wantErr: errHostAddress},
		"an IPv6 address with a zone":         {raw: "[fe80::1%25eth0]", wantErr: errHostAddress},
		"an IPv6 address with something else": {raw: "[::1]x", wantErr: errHostAddress},
		"an IPv6 address with a bad port":     {raw: "[::1]:x", wantErr: errHostPort},
		"an IPv4 address in brackets":         {raw: "[192.0.2.1]", wantErr: errHostAddress},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := NormalizeHost(tc.raw)
			if !errors.Is(err, tc.wantErr) {
				t.Fatalf("NormalizeHost(%q): error %v, want %v", tc.raw, err, tc.wantErr)
			}
			if err != nil && Reason(err) != "host_invalid" {
				t.Errorf("reason %q, want host_invalid", Reason(err))
			}
			if got != tc.want {
				t.Errorf("NormalizeHost(%q) = %q, want %q", tc.raw, got, tc.want)
			}
			if err == nil {
				if again, err := NormalizeHost(got); err != nil || again != got {
					t.Errorf("normalising %q again gives %q, %v", got, again, err)
				}
			}
		})
	}
}
