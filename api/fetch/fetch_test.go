package fetch

import (
	"net"
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
