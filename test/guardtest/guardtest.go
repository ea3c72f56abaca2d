// Package guardtest tests that a panic in a function of a listener changes nothing else.
package guardtest

import (
	"reflect"
	"testing"
)

// Fill sets each function of the listener that l points to so that it panics.
func Fill(l any) {
	v := reflect.ValueOf(l).Elem()
	for i := range v.NumField() {
		field := v.Field(i)
		if field.Kind() == reflect.Func {
			field.Set(reflect.MakeFunc(field.Type(), func([]reflect.Value) []reflect.Value { panic("on purpose") }))
		}
	}
}

// Call calls each function of the listener that l points to. The test fails if one panics.
func Call(t *testing.T, l any) {
	t.Helper()
	v := reflect.ValueOf(l).Elem()
	for i := range v.NumField() {
		field, name := v.Field(i), v.Type().Field(i).Name
		if field.Kind() != reflect.Func {
			continue
		}
		in := make([]reflect.Value, field.Type().NumIn())
		for k := range in {
			in[k] = reflect.Zero(field.Type().In(k))
		}
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("%s is not guarded: %v", name, p)
				}
			}()
			field.Call(in)
		}()
	}
}
