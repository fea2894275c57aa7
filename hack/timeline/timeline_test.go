package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keywright/keywright/api/v1alpha1"
	"github.com/keywright/keywright/controllers/lifecycle"
)

func spec(t *testing.T) v1alpha1.SigningKeySpec {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", crd))
	if err != nil {
		t.Fatal(err)
	}
	spec, err := defaults(raw)
	if err != nil {
		t.Fatal(err)
	}
	spec.Rotation.Interval = &v1alpha1.Duration{Duration: lifecycle.DefaultInterval}
	return spec
}

func TestDefaultsAreThoseOfTheCRD(t *testing.T) {
	got := spec(t)
	if got.MaxTokenTTL.Duration != time.Hour || got.Propagation.VerifierLag.Duration != 30*time.Minute || got.Propagation.ClockSkew.Duration != time.Minute {
		t.Errorf("defaults: %+v", got)
	}
}

func TestHistoryKeepsTheWaitsThatThePictureShows(t *testing.T) {
	spec := spec(t)
	keys, err := history(spec, 400*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 15 { // more than status keeps
		t.Fatalf("%d keys in 400 days, want 15", len(keys))
	}
	for i := 0; i+2 < len(keys); i++ {
		old, successor := keys[i], keys[i+1]
		if i > 0 && successor.ActivatedAt.Sub(successor.PublishedAt) < 31*time.Minute {
			t.Errorf("%s was published at %s and signed at %s", successor.ID, successor.PublishedAt, successor.ActivatedAt)
		}
		if old.DeactivatedAt.Before(successor.ActivatedAt) {
			t.Errorf("%s stopped at %s, before %s began at %s", old.ID, old.DeactivatedAt, successor.ID, successor.ActivatedAt)
		}
		if got := old.VerifyUntil.Sub(old.DeactivatedAt); got != 68*time.Minute {
			t.Errorf("%s verified for %s more, want 1h8m", old.ID, got)
		}
	}
}

func TestDraw(t *testing.T) {
	tests := map[string]struct {
		interval, ttl, span time.Duration
		want                []string
		wantErr             bool
	}{
		"the defaults": {
			interval: lifecycle.DefaultInterval, ttl: time.Hour, span: 90 * 24 * time.Hour,
			want: []string{
				"90 days of a SigningKey that rotates every 30 days", "Key 3 takes over from key 2, magnified",
				"V + e = 30m + 1m = 31m", "S + L + λ + 2e = 5m + 1h + 1m + 2m = 1h8m",
			},
		},
		"tokens that live for long": {
			interval: 24 * time.Hour, ttl: 6 * time.Hour, span: 4 * 24 * time.Hour,
			want: []string{"rotates every 24h", "S + L + λ + 2e = 5m + 6h + 1m + 2m = 6h8m"},
		},
		"a time in which nothing rotates": {interval: 24 * time.Hour, ttl: time.Hour, span: time.Hour, wantErr: true},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			p := picture{Spec: spec(t), Start: begin, End: begin.Add(tc.span)}
			p.Spec.Rotation.Interval = &v1alpha1.Duration{Duration: tc.interval}
			p.Spec.MaxTokenTTL = v1alpha1.Duration{Duration: tc.ttl}
			var err error
			if p.Keys, err = history(p.Spec, tc.span); err != nil {
				t.Fatal(err)
			}
			svg, err := drawn(p)
			if (err != nil) != tc.wantErr {
				t.Fatalf("error %v, want one: %v", err, tc.wantErr)
			}
			if err != nil {
				return
			}
			if again, _ := drawn(p); again != svg {
				t.Error("the same keys give another picture")
			}
			for _, want := range append(tc.want, `role="img"`, "<title ", "<desc ") {
				if !strings.Contains(svg, want) {
					t.Errorf("the picture lacks %q", want)
				}
			}
			for d := xml.NewDecoder(strings.NewReader(svg)); ; {
				if _, err := d.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0", time.Second: "1s", time.Minute: "1m", 90 * time.Second: "1m30s", time.Hour: "1h", 68 * time.Minute: "1h8m",
		10 * time.Minute: "10m", 24 * time.Hour: "24h", 48 * time.Hour: "2 days", 50 * time.Hour: "50h", 20 * time.Hour: "20h",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%s) = %q, want %q", d, got, want)
		}
	}
}
