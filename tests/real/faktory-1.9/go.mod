module example.invalid/real/faktory-1.9

go 1.25

require github.com/contribsys/faktory v1.9.3
