module example.invalid/bench

go 1.25

require github.com/contribsys/faktory v1.10.0
