// Command refdocs writes docs/reference/resources.md from the CRDs: fields with
// what their comments say, and every validation rule with its message, which is
// what a user looks up. (crd-ref-docs reads the Go types instead, names those
// rather than paths of fields, and shows no messages.)
//
// It is run by `make generate`, from the top of the repository.
package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/yaml"
)

const (
	from = "config/crd/bases"
	to   = "docs/reference/resources.md"
)

// crd is what is read of a CustomResourceDefinition.
type crd struct {
	Spec struct {
		Group string
		Names struct {
			Kind       string
			Plural     string
			ShortNames []string
		}
		Versions []struct {
			Name   string
			Schema struct {
				OpenAPIV3Schema *schema
			}
		}
	}
}

type schema struct {
	Type                 string
	Description          string
	Default              any
	Enum                 []any
	Properties           map[string]*schema
	Required             []string
	Items                *schema
	AdditionalProperties *schema
	Rules                []rule `json:"x-kubernetes-validations"`
}

type rule struct{ Rule, Message string }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "refdocs:", err)
		os.Exit(1)
	}
}

func run() error {
	files, err := filepath.Glob(filepath.Join(from, "*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no CRDs in %s: run from the top of the repository (%w)", from, err)
	}
	var b strings.Builder
	b.WriteString("<!-- Written by hack/refdocs from " + from + ": run `make generate`. -->\n\n# Resources\n\n" +
		"All fields, from the CRDs. `[]` stands for each entry of a list; a field in bold must be set.\n" +
		"`kubectl explain signingkey.spec --recursive` says the same in a cluster.\n")
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("reading a CRD: %w", err)
		}
		var c crd
		if err := yaml.Unmarshal(raw, &c); err != nil {
			return fmt.Errorf("reading %s: %w", file, err)
		}
		c.write(&b)
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return fmt.Errorf("writing %s: %w", to, err)
	}
	return os.WriteFile(to, []byte(b.String()), 0o644) //nolint:gosec // a document for everyone
}

func (c *crd) write(b *strings.Builder) {
	for _, version := range c.Spec.Versions {
		root := version.Schema.OpenAPIV3Schema
		fmt.Fprintf(b, "\n## %s\n\n`%s/%s`, `kubectl get %s` (`%s`). %s\n", c.Spec.Names.Kind, c.Spec.Group, version.Name,
			c.Spec.Names.Plural, strings.Join(c.Spec.Names.ShortNames, "`, `"), line(root.Description))
		var rules []string
		collect(&rules, "", root)
		for _, part := range []string{"spec", "status"} {
			p := root.Properties[part]
			fmt.Fprintf(b, "\n### %s.%s\n\n| field | type | default | meaning |\n|---|---|---|---|\n", c.Spec.Names.Kind, part)
			fields(b, "", p)
			collect(&rules, part, p)
		}
		if len(rules) > 0 {
			fmt.Fprintf(b, "\n### What %s refuses\n\nThe API server answers with the field and one of these texts.\n\n| field | text |\n|---|---|\n", c.Spec.Names.Kind)
			for _, r := range rules {
				b.WriteString(r)
			}
		}
	}
}

// fields writes a row for each field below s, parents before children.
func fields(b *strings.Builder, prefix string, s *schema) {
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name]
		shown := "`" + prefix + name + "`"
		if slices.Contains(s.Required, name) && p.Default == nil {
			shown = "**" + shown + "**"
		}
		meaning := line(p.Description)
		if len(p.Enum) > 0 {
			meaning = strings.TrimSpace(meaning + " One of " + values(p.Enum) + ".")
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", shown, typeOf(p), defaultOf(p), meaning)
		if own, list := below(p); own != nil {
			suffix := "."
			if list {
				suffix = "[]."
			}
			fields(b, prefix+name+suffix, own)
		}
	}
}

// below gives what has fields of its own, as far as they are ours.
func below(p *schema) (own *schema, list bool) {
	if own, list = p, false; p.Items != nil {
		own, list = p.Items, true
	}
	// Conditions and label selectors are Kubernetes's own.
	if len(own.Properties) == 0 || own.Properties["lastTransitionTime"] != nil || own.Properties["matchLabels"] != nil {
		return nil, false
	}
	return own, list
}

// isDuration tells durations by the rule that all of them have.
func isDuration(s *schema) bool {
	return slices.ContainsFunc(s.Rules, func(r rule) bool { return strings.HasPrefix(r.Message, "write a duration ") })
}

func typeOf(s *schema) string {
	switch {
	case isDuration(s):
		return "duration"
	case s.Items != nil:
		return "list of " + typeOf(s.Items)
	case s.AdditionalProperties != nil:
		return "map to " + typeOf(s.AdditionalProperties)
	}
	return s.Type
}

func defaultOf(s *schema) string {
	switch v := s.Default.(type) {
	case nil, map[string]any:
		return "" // an object's default is that of its fields
	default:
		return fmt.Sprintf("`%v`", v)
	}
}

func values(list []any) string {
	var out []string
	for _, v := range list {
		out = append(out, fmt.Sprintf("`%v`", v))
	}
	return strings.Join(out, ", ")
}

// collect adds a row for each rule of s and of what is below it. The rule that
// all durations have is named once, for the first.
func collect(rows *[]string, path string, s *schema) {
	if s == nil || (path == "" && len(s.Rules) == 0) {
		return
	}
	rules := slices.Clone(s.Rules)
	slices.SortStableFunc(rules, func(a, b rule) int { return cmp.Compare(a.Message, b.Message) })
	for _, r := range rules {
		at := "`" + path + "`"
		if path == "" {
			at = "the object"
		}
		if strings.HasPrefix(r.Message, "write a duration ") {
			at = "durations"
		}
		if row := fmt.Sprintf("| %s | %s |\n", at, line(r.Message)); !slices.Contains(*rows, row) {
			*rows = append(*rows, row)
		}
	}
	if path == "" {
		return
	}
	if s.Items != nil {
		collect(rows, path+"[]", s.Items)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		collect(rows, path+"."+name, s.Properties[name])
	}
}

// line fits a text into a table's cell.
func line(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	return strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;", "*", `\*`).Replace(text)
}
