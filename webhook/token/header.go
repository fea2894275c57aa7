package token

import (
	"fmt"
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// header is a JOSE header (RFC 7515 section 4) that may be gone by.
type header struct {
	// segment is what it was read from.
	segment string
	// kid is empty when there is none.
	kid, alg string
	// accessToken says that typ is that of access tokens.
	accessToken bool
}

// refusedHeaders would have to be understood (crit, zip, b64), make the token
// something else (cty, enc) or bring a key of the sender's own (jwk, jku, x5u,
// x5c). The certificate thumbprints x5t and x5t#S256 are not among them: they
// are no key and lead to none, kid alone decides, and large issuers send them.
var refusedHeaders = [...]string{"crit", "zip", "b64", "cty", "enc", "jwk", "jku", "x5u", "x5c"}

// recent are headers that came lately, by their segments: the tokens that one
// program signs with one key all have the same. They are of tokens that nobody
// need have signed, and read the same whoever sends them. With less than MaxBytes
// each, before and after they are read, all take less than 1 MiB.
var (
	recent     [64]atomic.Pointer[header]
	recentSeed = maphash.MakeSeed()
)

// readHeader reads the first segment of a token.
func readHeader(segment string) (*header, error) {
	place := &recent[maphash.String(recentSeed, segment)%uint64(len(recent))]
	if h := place.Load(); h != nil && h.segment == segment {
		return h, nil
	}
	text, err := decodeSegment(segment)
	if err != nil {
		return nil, err
	}
	h, err := checkHeader(text)
	if err != nil {
		return nil, err
	}
	h.segment = strings.Clone(segment) // it is a part of the token
	place.Store(h)
	return h, nil
}

// checkHeader reads the text of a header.
func checkHeader(text string) (*header, error) {
	var members Claims
	if err := members.decode(text, maxHeaderValues); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrMalformed, err)
	}
	for _, name := range refusedHeaders {
		if _, there := members.Member(name); there {
			return nil, fmt.Errorf("%w: %s", ErrUnsupportedHeader, name)
		}
	}
	h := &header{}
	if typ, there := members.Member("typ"); there {
		if typ.Kind() != Text {
			return nil, fmt.Errorf("%w: typ is not a string", ErrWrongType)
		}
		h.accessToken = isType(typ.Text(), "at+jwt")
		if !h.accessToken && !isType(typ.Text(), "JWT") {
			return nil, fmt.Errorf("%w: typ %s", ErrWrongType, Quote(typ.Text()))
		}
	}
	alg, _ := members.Member("alg")
	if alg.Kind() != Text {
		return nil, fmt.Errorf("%w: header: alg is not a string", ErrMalformed)
	}
	h.alg = alg.Text()
	if kid, there := members.Member("kid"); there {
		if h.kid = kid.Text(); h.kid == "" { // it would pass for none
			return nil, fmt.Errorf("%w: header: kid is not a string with something in it", ErrMalformed)
		}
	}
	return h, nil
}

// isType compares media types as RFC 7515 section 4.1.9 says: without regard
// to case, "application/" may be left out.
func isType(typ, want string) bool {
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) {
		typ = typ[len(prefix):]
	}
	return strings.EqualFold(typ, want)
}
