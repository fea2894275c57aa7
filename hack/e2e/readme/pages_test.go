package readme

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keywright/keywright/hack/e2e/stack"
)

// pages in the order in which a reader would follow them; later ones go on with
// what earlier ones left in the cluster.
var pages = []string{
	"README.md",
	"docs/README.md",
	"docs/callers.md",
	"docs/debug-a-refusal.md",
	"docs/how-a-rotation-is-never-seen.md",
	"docs/harden-the-gate.md",
	"docs/import-a-key.md",
	"docs/revoke-in-an-emergency.md",
	"docs/restore-a-backup.md",
	"docs/reference/resources.md",
	"docs/reference/operations.md",
	"docs/architecture.md",
	"CONTRIBUTING.md",
	"SECURITY.md",
	"CHANGELOG.md",
}

// notRun are the blocks that are neither run nor compared, by page and first
// line, with the reason.
var notRun = map[string]string{
	"README.md: $ make build && docker build --target prebuilt -t keywright:0.1.0 .":                                             "needs a container runtime, which a test machine may lack",
	"README.md: . published, stands by     # active, signs     - signs no more, its tokens still pass":                           "a picture: what a run of the demo printed",
	"docs/how-a-rotation-is-never-seen.md: made        known long enough       successor signs       nothing it signed can live": "a picture",
	"docs/harden-the-gate.md: $ helm upgrade keywright charts/keywright -n keywright-system --reuse-values \\":                   "the cluster of the test enforces no network policy; hack/e2e/chart renders it",
	"docs/harden-the-gate.md: typed_per_filter_config:":                                                                          "a part of Envoy's configuration",
	"docs/architecture.md: SigningKey.spec ──┐":                                                                                  "a picture",
	"docs/callers.md: upstream gate {":                                                                                           "a proxy's configuration: hack/e2e/gate runs it as it is",
	"docs/callers.md: # static: the client's X_Auth_Subject and X.Auth.Subject go.":                                              "a proxy's configuration: hack/e2e/gate runs it as it is",
	"docs/callers.md: # dynamic":                    "a proxy's configuration: hack/e2e/gate runs it as it is",
	"docs/callers.md: http://orders.shop.example {": "a proxy's configuration: hack/e2e/gate runs it as it is",
	"docs/callers.md: global":                       "a proxy's configuration: hack/e2e/gate runs it as it is",
	"docs/callers.md: http_service:":                "configuration of Envoy, which the tests do not have: hack/e2e/callers reads it as Envoy would",
	"docs/callers.md: transport_socket:":            "configuration of Envoy, which the tests do not have: hack/e2e/callers reads it as Envoy would",
	"docs/architecture.md: client ─► nginx ─ subrequest ─► webhook/httpauth ─► webhook/authz ─► decision ─► 200, 401, 403 ─► nginx ─► application": "a picture",
}

// printed begins the comment before a text block that holds what the block
// above it prints.
const printed = "printed by the block above"

// block is one fenced block.
type block struct {
	page, info, text string
	line             int
	note             string // an HTML comment right before it
}

func (b block) firstLine() string {
	line, _, _ := strings.Cut(strings.TrimSpace(b.text), "\n")
	return line
}

func (b block) compared() bool { return b.info == "text" && strings.HasPrefix(b.note, printed) }

var makeLine = regexp.MustCompile(`^make ([a-z-]+)$`)

// targets are the targets of a block that calls make alone, nothing else.
func (b block) targets() []string {
	var out []string
	for line := range strings.Lines(b.text) {
		m := makeLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			return nil
		}
		out = append(out, m[1])
	}
	return out
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(stack.Root(), path))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// blocks are the fenced blocks of a page.
func blocks(t *testing.T, page string) []block {
	t.Helper()
	var out []block
	var open *block
	note := ""
	for i, line := range strings.Split(read(t, page), "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(trimmed, "~~~"), strings.HasPrefix(trimmed, "````"), strings.HasPrefix(trimmed, "<pre"):
			t.Fatalf("%s:%d: write blocks with three backticks, so that this test sees them", page, i+1)
		case strings.HasPrefix(trimmed, "```") && open == nil:
			if line != trimmed {
				t.Fatalf("%s:%d: an indented block", page, i+1)
			}
			open = &block{page: page, info: strings.TrimPrefix(trimmed, "```"), line: i + 1, note: note}
		case strings.HasPrefix(trimmed, "```"):
			out = append(out, *open)
			open, note = nil, ""
		case open != nil:
			open.text += line + "\n"
		case strings.HasPrefix(trimmed, "<!-- ") && strings.HasSuffix(trimmed, " -->"):
			note = strings.TrimSuffix(strings.TrimPrefix(trimmed, "<!-- "), " -->")
		case trimmed != "":
			note = ""
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block has no end", page, open.line)
	}
	return out
}

// TestEveryPageIsRead finds pages that the list above lacks.
func TestEveryPageIsRead(t *testing.T) {
	got, err := filepath.Glob(filepath.Join(stack.Root(), "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(stack.Root(), "docs"), func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			got = append(got, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if got[i], err = filepath.Rel(stack.Root(), got[i]); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(slices.Sorted(slices.Values(pages)), got); diff != "" {
		t.Errorf("pages that this test reads, and those that are there (-want +got):\n%s", diff)
	}
}

// TestNoBlockIsSkippedInSilence: what is not run is named, with the reason.
func TestNoBlockIsSkippedInSilence(t *testing.T) {
	left := map[string]bool{}
	for name := range notRun {
		left[name] = true
	}
	for _, page := range pages {
		before := block{}
		for _, b := range blocks(t, page) {
			name := b.page + ": " + b.firstLine()
			switch {
			case b.info == "sh", b.info == "yaml":
			case b.compared():
				if before.info != "sh" {
					t.Errorf("%s:%d: nothing above it prints this", page, b.line)
				}
			case b.info == "text", b.info == "console":
				if notRun[name] == "" {
					t.Errorf("%s:%d: neither run nor compared, and the test does not say why: %q", page, b.line, name)
				}
				if b.info == "console" && !strings.HasPrefix(b.note, "not run: ") {
					t.Errorf("%s:%d: a comment \"not run: …\" belongs before it", page, b.line)
				}
				delete(left, name)
			default:
				t.Errorf("%s:%d: info string %q: use sh, yaml, text or console", page, b.line, b.info)
			}
			before = b
		}
	}
	for name := range left {
		t.Errorf("no such block: %q", name)
	}
}

var link = regexp.MustCompile(`\]\(([^)#]*)(?:#([^)]*))?\)`)

// TestLinksLeadSomewhere: files and headings that pages link to are there.
func TestLinksLeadSomewhere(t *testing.T) {
	for _, page := range pages {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			to, heading := m[1], m[2]
			if strings.Contains(to, "://") {
				t.Errorf("%s: link to another site: %s", page, to)
				continue
			}
			path := filepath.Join(filepath.Dir(page), to)
			if to == "" {
				path = page
			}
			if _, err := os.Stat(filepath.Join(stack.Root(), path)); err != nil {
				t.Errorf("%s: %v", page, err)
				continue
			}
			if heading != "" && !slices.Contains(headings(read(t, path)), heading) {
				t.Errorf("%s: %s has no heading %q", page, path, heading)
			}
		}
	}
}

// headings gives the anchors of a page's headings, as GitHub makes them.
func headings(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if rest := strings.TrimLeft(line, "#"); rest != line {
			out = append(out, strings.ReplaceAll(notInAnchors.ReplaceAllString(strings.ToLower(strings.TrimSpace(rest)), ""), " ", "-"))
		}
	}
	return out
}

var notInAnchors = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

// rows gives the first cells, without backticks, of the tables between a
// heading and the next of the same or a higher level.
func rows(t *testing.T, page, heading string, column int) []string {
	t.Helper()
	level := strings.IndexFunc(heading, func(r rune) bool { return r != '#' })
	var out []string
	inside := false
	for line := range strings.Lines(read(t, page)) {
		line = strings.TrimSpace(line)
		if n := len(line) - len(strings.TrimLeft(line, "#")); n > 0 && n <= level {
			inside = line == heading
			continue
		}
		if cells := strings.Split(line, " | "); inside && len(cells) > column && strings.HasPrefix(line, "| ") {
			for _, m := range quoted.FindAllStringSubmatch(cells[column], -1) {
				out = append(out, m[1])
			}
		}
	}
	if len(out) == 0 {
		t.Fatal(fmt.Errorf("%s: no table under %q", page, heading))
	}
	return out
}

var quoted = regexp.MustCompile("`([^`]+)`")
