package token_test

import (
	"crypto"
	"encoding/base64"
	"testing"
	"time"

	"github.com/keywright/keywright/api/keyset"
	"github.com/keywright/keywright/webhook/token"
)

// vector is a token from an RFC. Those whose payload is no claims set fail
// only after their signature has passed.
type vector struct {
	key        *keyset.Key
	raw        string
	wantReason string
}

// rfcVectors are RFC 7515 A.2 and A.3, RFC 7520 4.1 to 4.4 and RFC 8037 A.4.
func rfcVectors(t testing.TB) map[string]vector {
	t.Helper()
	key := func(id string, alg keyset.Algorithm, pub crypto.PublicKey) *keyset.Key {
		return &keyset.Key{ID: id, Algorithm: alg, Public: pub, MaxTokenTTL: time.Hour}
	}
	public := func(m keyset.Members) crypto.PublicKey {
		pub, err := m.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		return pub
	}
	secret, err := base64.RawURLEncoding.DecodeString("hJtXIZ2uSN5kbQfbtTNWbpdmhkV8FJG-Onbc6mxCcYg")
	if err != nil {
		t.Fatal(err)
	}

	joe := public(keyset.Members{Kty: "RSA", E: "AQAB", N: "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"})
	joeEC := public(keyset.Members{Kty: "EC", Crv: "P-256", X: "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", Y: "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})
	bilbo := public(keyset.Members{Kty: "RSA", E: "AQAB", N: "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw"})
	bilboEC := public(keyset.Members{Kty: "EC", Crv: "P-521", X: "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt", Y: "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1"})
	ed := public(keyset.Members{Kty: "OKP", Crv: "Ed25519", X: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})

	joeClaims := b64("{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}")
	frodo := b64("It\u2019s a dangerous business, Frodo, going out your door. You step onto the road, and if you don't keep your feet, there\u2019s no knowing where you might be swept off to.")
	const baggins = "bilbo.baggins@hobbiton.example"
	bagginsHeader := func(alg string) string { return b64(`{"alg":"` + alg + `","kid":"` + baggins + `"}`) }

	return map[string]vector{
		"RFC 7515 A.2, RS256": {key("", keyset.RS256, joe),
			b64(`{"alg":"RS256"}`) + "." + joeClaims + ".cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
			""},
		"RFC 7515 A.3, ES256": {key("", keyset.ES256, joeEC),
			b64(`{"alg":"ES256"}`) + "." + joeClaims + ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
			""},
		"RFC 7520 4.1, RS256": {key(baggins, keyset.RS256, bilbo),
			bagginsHeader("RS256") + "." + frodo + ".MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg",
			"malformed"},
		"RFC 7520 4.2, PS384": {key(baggins, keyset.PS384, bilbo),
			bagginsHeader("PS384") + "." + frodo + ".cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiNAUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAeQTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw",
			"malformed"},
		"RFC 7520 4.3, ES512": {key(baggins, keyset.ES512, bilboEC),
			bagginsHeader("ES512") + "." + frodo + ".AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMDxXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2",
			"malformed"},
		"RFC 7520 4.4, HS256": {key("018c0ae5-4d9b-471b-bfd6-eef314bc7037", keyset.HS256, secret),
			b64(`{"alg":"HS256","kid":"018c0ae5-4d9b-471b-bfd6-eef314bc7037"}`) + "." + frodo + ".s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0",
			"malformed"},
		"RFC 8037 A.4, EdDSA": {key("", keyset.EdDSA, ed),
			b64(`{"alg":"EdDSA"}`) + "." + b64("Example of Ed25519 signing") + ".hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
			"malformed"},
	}
}

func TestVectorsOfRFCs(t *testing.T) {
	for name, v := range rfcVectors(t) {
		t.Run(name, func(t *testing.T) {
			_, err := token.Parse(v.raw, func(string) (*keyset.Key, error) { return v.key, nil })
			wantReason(t, err, v.wantReason)
			// Malformed is what claims are said to be once the signature is
			// right: with another signature it is the signature that is wrong.
			last := byte('A')
			if v.raw[len(v.raw)-4] == last {
				last = 'B'
			}
			bad := v.raw[:len(v.raw)-4] + string(last) + v.raw[len(v.raw)-3:]
			_, err = token.Parse(bad, func(string) (*keyset.Key, error) { return v.key, nil })
			wantReason(t, err, "bad_signature")
		})
	}
}
