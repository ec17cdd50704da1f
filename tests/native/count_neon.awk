# Lines "TYPE BACKEND DIRECTION WEIGHTS COUNT" to a table: a row a type, for each direction scalar, NEON and their ratio.
{
    if (!($1 in seen)) {
        seen[$1] = 1
        order[++types] = $1
    }
    per[$1, $3, $2] = $5 / $4
}
function figure(v) { return v >= 100 ? sprintf("%.0f", v) : v >= 10 ? sprintf("%.1f", v) : sprintf("%.2f", v) }
function cells(type, how,    a, b) {
    if (!((type, how, "neon") in per)) {
        return " |  |  | "
    }
    a = per[type, how, "scalar"]
    b = per[type, how, "neon"]
    return sprintf(" | %s | %s | %.1f", figure(a), figure(b), a / b)
}
END {
    print "| type | encode: plain C | NEON | ratio | with importance: plain C | NEON | ratio | decode: plain C | NEON | ratio |"
    print "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for (i = 1; i <= types; i++) {
        t = order[i]
        print "| " t cells(t, "plain") cells(t, "weighted") cells(t, "decode") " |"
    }
}
