// Package v1alpha1 holds the resources of group keywright.dev: what a user
// writes, what the controller answers in status, and the names of conditions
// and event reasons. It decides nothing.
//
// +kubebuilder:object:generate=true
// +groupName=keywright.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of every type in this package.
var GroupVersion = schema.GroupVersion{Group: "keywright.dev", Version: "v1alpha1"}

var schemeBuilder = runtime.NewSchemeBuilder(func(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&SigningKey{}, &SigningKeyList{},
		&AccessPolicy{}, &AccessPolicyList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
})

// AddToScheme registers the types of this package.
var AddToScheme = schemeBuilder.AddToScheme
