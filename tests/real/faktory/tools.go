//go:build tools

// Package tools pins the Faktory server that the tests run against.
package tools

import _ "github.com/contribsys/faktory/cmd/faktory"
