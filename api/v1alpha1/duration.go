package v1alpha1

import (
	"encoding/json"
	"fmt"
	"time"
)

// Duration is a span of time in hours, minutes and whole seconds: 720h, 30m,
// 1h30m, 90s. It is never negative, and so short that sums of a few cannot
// overflow.
//
// +kubebuilder:validation:Type=string
// +kubebuilder:validation:MaxLength=24
// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,5}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && size(self) > 0",message="write a duration from 0s to 99999h, in hours, minutes and whole seconds, such as 720h, 30m or 1h30m"
type Duration struct {
	time.Duration `json:"-"`
}

// MarshalJSON writes the duration as Go does, such as 1h30m0s.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads what MarshalJSON writes and what the schema allows.
func (d *Duration) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil {
		return fmt.Errorf("reading a duration: %w", err)
	}
	parsed, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("reading a duration: %w", err)
	}
	d.Duration = parsed
	return nil
}
