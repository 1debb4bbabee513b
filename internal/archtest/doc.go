// Package archtest holds the tests that keep the house in order; see archtest_test.go.
package archtest
