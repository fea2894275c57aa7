package policy

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseTarget(t *testing.T) {
	for name, tc := range map[string]struct {
		raw           string
		wantPath      string
		wantQuery     string
		wantAmbiguous bool
		wantErr       error
	}{
		"a plain path is its own normal form":         {raw: "/a/b", wantPath: "/a/b"},
		"the root":                                    {raw: "/", wantPath: "/"},
		"a trailing slash is kept":                    {raw: "/a/", wantPath: "/a/"},
		"dots within a segment are no dot segment":    {raw: "/a.b/..c/d..", wantPath: "/a.b/..c/d.."},
		"a segment of three dots is a name":           {raw: "/.../x", wantPath: "/.../x"},
		"a hidden file is a name":                     {raw: "/.well-known/x", wantPath: "/.well-known/x"},
		"the query is cut off and stays raw":          {raw: "/a?x=%2e%2e/&y=;", wantPath: "/a", wantQuery: "x=%2e%2e/&y=;"},
		"the first question mark cuts":                {raw: "/a?b?/../c", wantPath: "/a", wantQuery: "b?/../c"},
		"a query alone leaves no path behind":         {raw: "/?x=/public", wantPath: "/", wantQuery: "x=/public"},
		"an encoded space needs its encoding":         {raw: "/a%20b", wantPath: "/a b"},
		"an encoded reserved character is fine":       {raw: "/u/me%40example.com", wantPath: "/u/me@example.com"},
		"encoded UTF-8 is fine":                       {raw: "/caf%C3%A9", wantPath: "/café"},
		"a plus is a plus":                            {raw: "/a+b", wantPath: "/a+b"},
		"an encoded letter is ambiguous":              {raw: "/%61dmin", wantPath: "/admin", wantAmbiguous: true},
		"raw characters outside ASCII are ambiguous":  {raw: "/café", wantPath: "/café", wantAmbiguous: true},
		"a fullwidth slash is ambiguous":              {raw: "/public%EF%BC%8Fadmin", wantPath: "/public／admin", wantAmbiguous: true},
		"fullwidth dots are ambiguous":                {raw: "/public/%EF%BC%8E%EF%BC%8E/x", wantPath: "/public/．．/x", wantAmbiguous: true},
		"a two dot leader is ambiguous":               {raw: "/public/%E2%80%A5/x", wantPath: "/public/‥/x", wantAmbiguous: true},
		"a dot segment at the end closes with slash":  {raw: "/a/b/.", wantPath: "/a/b/", wantAmbiguous: true},
		"a climb at the end closes with a slash":      {raw: "/a/b/..", wantPath: "/a/", wantAmbiguous: true},
		"a climb from the first segment is the root":  {raw: "/a/..", wantPath: "/", wantAmbiguous: true},
		"a climb above the root stays there":          {raw: "/../../a", wantPath: "/a", wantAmbiguous: true},
		"slashes are merged before a climb, as nginx": {raw: "/a//../b", wantPath: "/b", wantAmbiguous: true},
		"slashes at the end are merged":               {raw: "/a///", wantPath: "/a/", wantAmbiguous: true},
		"slashes alone are the root":                  {raw: "///", wantPath: "/", wantAmbiguous: true},

		// The published faults of security.md.
		"published: /public/../admin":                       {raw: "/public/../admin", wantPath: "/admin", wantAmbiguous: true},
		"published: encoded dots":                           {raw: "/public/%2e%2e/admin", wantPath: "/admin", wantAmbiguous: true},
		"published: encoded dots in capitals":               {raw: "/public/%2E%2E/admin", wantPath: "/admin", wantAmbiguous: true},
		"published: one dot encoded":                        {raw: "/public/.%2e/admin", wantPath: "/admin", wantAmbiguous: true},
		"published: encoded slash":                          {raw: "/public%2f..%2fadmin", wantErr: errEncodedSlash},
		"published: encoded slash in capitals":              {raw: "/public%2F..%2Fadmin", wantErr: errEncodedSlash},
		"published: encoded backslash":                      {raw: "/public/..%5cadmin", wantErr: errEncodedSlash},
		"published: encoded backslash in capitals":          {raw: "/public/..%5Cadmin", wantErr: errEncodedSlash},
		"published: backslash":                              {raw: `/public/..\admin`, wantErr: errBackslash},
		"published: doubled slash":                          {raw: "//admin", wantPath: "/admin", wantAmbiguous: true},
		"published: path parameter":                         {raw: "/admin;x", wantPath: "/admin;x", wantAmbiguous: true},
		"published: encoded path parameter":                 {raw: "/admin%3Bx", wantPath: "/admin;x", wantAmbiguous: true},
		"published: climb with a path parameter":            {raw: "/public/..;/admin", wantErr: errDotParameter},
		"published: climb with an encoded path parameter":   {raw: "/public/%2e%2e%3bx/admin", wantErr: errDotParameter},
		"published: dots glued to a name are no climb":      {raw: "/public../admin", wantPath: "/public../admin"},
		"published: /public..":                              {raw: "/public..", wantPath: "/public.."},
		"published: encoded NUL":                            {raw: "/public%00/admin", wantErr: errEncodedSlash},
		"published: raw NUL":                                {raw: "/public\x00", wantErr: errControl},
		"published: double encoding of dots":                {raw: "/public/%252e%252e/admin", wantPath: "/public/%2e%2e/admin", wantAmbiguous: true},
		"published: double encoding of a slash":             {raw: "/public/..%252fadmin", wantPath: "/public/..%2fadmin", wantAmbiguous: true},
		"published: overlong dots":                          {raw: "/public/%c0%ae%c0%ae/admin", wantErr: errNotUTF8},
		"published: overlong slash":                         {raw: "/public%c0%afadmin", wantErr: errNotUTF8},
		"published: public path in the query":               {raw: "/admin?x=/public", wantPath: "/admin", wantQuery: "x=/public"},
		"published: fragment":                               {raw: "/admin#/public", wantErr: errFragment},
		"published: fragment in the query":                  {raw: "/admin?#/public", wantErr: errFragment},
		"published: encoded fragment":                       {raw: "/admin%23/public", wantPath: "/admin#/public", wantAmbiguous: true},
		"published: encoded question mark":                  {raw: "/admin%3F/public", wantPath: "/admin?/public", wantAmbiguous: true},
		"published: IIS escapes are bad escapes":            {raw: "/public/%u002e%u002e/admin", wantErr: errEscape},
		"a cut escape is refused":                           {raw: "/a%2", wantErr: errEscape},
		"a lone percent is refused":                         {raw: "/a%", wantErr: errEscape},
		"an escape that is not hexadecimal is refused":      {raw: "/a%zz", wantErr: errEscape},
		"an encoded line feed is refused":                   {raw: "/a%0ab", wantErr: errControl},
		"an encoded DEL is refused":                         {raw: "/a%7f", wantErr: errControl},
		"an encoded C1 control is refused":                  {raw: "/a%C2%85", wantErr: errControl},
		"an encoded line separator is refused":              {raw: "/a%E2%80%A8", wantErr: errControl},
		"a raw space is refused":                            {raw: "/a b", wantErr: errControl},
		"a raw CR LF is refused":                            {raw: "/a\r\nX: y", wantErr: errControl},
		"a raw control character in the query is refused":   {raw: "/a?b\n", wantErr: errControl},
		"a lone byte outside ASCII is refused":              {raw: "/a\xff", wantErr: errNotUTF8},
		"Latin-1 is refused":                                {raw: "/caf%E9", wantErr: errNotUTF8},
		"an encoded surrogate is refused":                   {raw: "/%ED%A0%80", wantErr: errNotUTF8},
		"an empty target is refused":                        {raw: "", wantErr: errNotOrigin},
		"asterisk form is refused":                          {raw: "*", wantErr: errNotOrigin},
		"absolute form is refused":                          {raw: "http://other/admin", wantErr: errNotOrigin},
		"a relative path is refused":                        {raw: "admin", wantErr: errNotOrigin},
		"a target that begins with its query is refused":    {raw: "?x", wantErr: errNotOrigin},
		"dots before a parameter that are a name are plain": {raw: "/...;x", wantPath: "/...;x", wantAmbiguous: true},
	} {
		t.Run(name, func(t *testing.T) {
			path, query, ambiguous, err := ParseTarget(tc.raw)
			if !errors.Is(err, tc.wantErr) {
				t.Fatalf("ParseTarget(%q): error %v, want %v", tc.raw, err, tc.wantErr)
			}
			if err != nil && (!errors.Is(err, ErrBadPath) || Reason(err) != "path_invalid") {
				t.Errorf("error %v has reason %q, want an ErrBadPath with path_invalid", err, Reason(err))
			}
			if path != tc.wantPath || query != tc.wantQuery || ambiguous != tc.wantAmbiguous {
				t.Errorf("ParseTarget(%q) = %q, %q, ambiguous %t; want %q, %q, %t",
					tc.raw, path, query, ambiguous, tc.wantPath, tc.wantQuery, tc.wantAmbiguous)
			}
		})
	}
}

// checkTarget holds what is true of every target.
func checkTarget(t *testing.T, raw string) {
	t.Helper()
	path, query, ambiguous, err := ParseTarget(raw)
	if err != nil {
		if !errors.Is(err, ErrBadPath) {
			t.Fatalf("ParseTarget(%q): error %v is no ErrBadPath", raw, err)
		}
		if path != "" || query != "" || ambiguous {
			t.Fatalf("ParseTarget(%q) gives %q, %q, %t beside an error", raw, path, query, ambiguous)
		}
		return
	}
	if !strings.HasPrefix(path, "/") || strings.Contains(path, "//") {
		t.Fatalf("ParseTarget(%q) = %q: does not begin with one '/' or has two", raw, path)
	}
	for _, segment := range strings.Split(path, "/") {
		if segment == "." || segment == ".." {
			t.Fatalf("ParseTarget(%q) = %q has a dot segment", raw, path)
		}
	}
	if !utf8.ValidString(path) || strings.ContainsAny(path, "\\\x00\r\n\x7f") {
		t.Fatalf("ParseTarget(%q) = %q has what must be refused", raw, path)
	}
	if !strings.HasSuffix(raw, query) {
		t.Fatalf("ParseTarget(%q): query %q is not the raw one", raw, query)
	}
	if rawPath, _, _ := strings.Cut(raw, "?"); !ambiguous && strings.Count(rawPath, "/") != strings.Count(path, "/") {
		t.Fatalf("ParseTarget(%q) = %q lost a slash and is not ambiguous", raw, path)
	}

	again, none, stillAmbiguous, err := ParseTarget(escapePath(path))
	if err != nil || again != path || none != "" {
		t.Fatalf("ParseTarget(%q) = %q, encoded again gives %q, %q, %v", raw, path, again, none, err)
	}
	if stillAmbiguous && !ambiguous {
		t.Fatalf("ParseTarget(%q) = %q is not ambiguous, its own encoding is", raw, path)
	}
	if stillAmbiguous && !strings.ContainsAny(path, "%?#;") && !strings.ContainsFunc(path, foldsToASCII) {
		t.Fatalf("%q, which is normal and plain, is ambiguous", path)
	}
}

func TestParseTargetHoldsItsPropertiesOnRandomTargets(t *testing.T) {
	pieces := []string{
		"/", "/", "/", ".", "..", "/../", "/./", "//", "a", "admin", "public", "%2e", "%2E", "%2f", "%5C", "%25", "%252e",
		"%41", "%20", "%40", "%00", "%0a", "%C3%A9", "%c0%ae", "é", ";", "%3b", ";x=1", "?", "#", "%23", "%3f", "\\", " ", "%", "%u", "~", "+", "／", "\xff",
	}
	state := uint64(1)
	below := func(n int) int { // Knuth's linear congruential generator: the same targets in every run
		state = state*6364136223846793005 + 1442695040888963407
		return int(state>>33) % n
	}
	for range 200_000 {
		var b strings.Builder
		b.WriteByte('/')
		for range below(8) {
			b.WriteString(pieces[below(len(pieces))])
		}
		checkTarget(t, b.String())
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, seed := range []string{
		"", "/", "/a/%2e%2e/b?x=1", "/public/../admin", "//admin", "/a;x/..;y", "/%252e", "/caf%C3%A9", "/%c0%ae", "/a#b", "/a\\b", "*", "/.", "/..", "/a/..//./b/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) { checkTarget(t, raw) })
}
