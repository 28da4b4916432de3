//go:build tools

// Package tools pins a Faktory that tells of trouble in its store at once.
package tools

import _ "github.com/contribsys/faktory/cmd/faktory"
