package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Duration is a span of time in hours, minutes and whole seconds: 720h, 30m,
// 1h30m, 90s. It is never negative.
//
// +kubebuilder:validation:Type=string
// +kubebuilder:validation:MaxLength=24
// +kubebuilder:validation:XValidation:rule="self.matches('^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$') && self != ”",message="write a duration that is not negative in hours, minutes and whole seconds, such as 720h, 30m or 1h30m"
type Duration = metav1.Duration
