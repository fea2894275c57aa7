// Command timeline draws the keys of a SigningKey as bars, in SVG: the plan
// that the controller follows (lifecycle.Plan), run on a clock of its own.
//
// It owns that picture. It decides nothing about keys: what it shows is what
// the plan does, with the defaults of the CRD unless a flag says otherwise.
//
//	go run ./hack/timeline > docs/rotation.svg
//
// is what `make generate` runs, from the top of the repository. The same input
// gives the same bytes. Text is in whatever font the reader has.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

const crd = "config/crd/bases/keywright.dev_signingkeys.yaml"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "timeline:", err)
		os.Exit(1)
	}
}

func run() error {
	raw, err := os.ReadFile(crd)
	if err != nil {
		return fmt.Errorf("run from the top of the repository: %w", err)
	}
	spec, err := defaults(raw)
	if err != nil {
		return err
	}
	days := flag.Float64("days", 90, "how many days to draw; at least one rotation has to fall into them")
	interval := flag.Duration("interval", lifecycle.DefaultInterval, "spec.rotation.interval")
	for name, d := range map[string]*v1alpha1.Duration{
		"max-token-ttl": &spec.MaxTokenTTL,
		"verifier-lag":  &spec.Propagation.VerifierLag,
		"signer-lag":    &spec.Propagation.SignerLag,
		"clock-skew":    &spec.Propagation.ClockSkew,
		"leeway":        &spec.Propagation.Leeway,
	} {
		flag.DurationVar(&d.Duration, name, d.Duration, "of spec")
	}
	flag.Parse()
	spec.Rotation.Interval = &v1alpha1.Duration{Duration: *interval}

	span := time.Duration(*days * float64(24*time.Hour))
	keys, err := history(spec, span)
	if err != nil {
		return err
	}
	svg, err := drawn(picture{Spec: spec, Start: begin, End: begin.Add(span), Keys: keys})
	if err != nil {
		return err
	}
	_, err = os.Stdout.WriteString(svg)
	return err
}

// defaults is the spec that the API server makes of an empty one.
func defaults(crd []byte) (v1alpha1.SigningKeySpec, error) {
	var doc struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema struct {
						Properties struct {
							Spec struct{ Default json.RawMessage }
						}
					}
				}
			}
		}
	}
	var spec v1alpha1.SigningKeySpec
	if err := yaml.Unmarshal(crd, &doc); err != nil {
		return spec, fmt.Errorf("reading the CRD: %w", err)
	}
	if len(doc.Spec.Versions) != 1 {
		return spec, fmt.Errorf("reading the CRD: it has %d versions, not one", len(doc.Spec.Versions))
	}
	if err := json.Unmarshal(doc.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties.Spec.Default, &spec); err != nil {
		return spec, fmt.Errorf("reading the CRD's defaults: %w", err)
	}
	return spec, nil
}
