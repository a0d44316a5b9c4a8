// Numbers as people read them.
const MISSING = "–";
const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };
const raised = (exponent) => String(exponent).replace(/./g, (digit) => RAISED[digit] ?? digit);

// 1.31×10¹³: one form at every size, because FLOPs in a column are compared with each other.
function scientific(value, digits = 2) {
  if (value === null || value === undefined) return MISSING;
  if (value === 0) return "0";
  const [mantissa, exponent] = value.toExponential(digits).split("e");
  return `${mantissa}×10${raised(Number(exponent))}`;
}

// 2·10¹³ or 10¹³, for the marks of an axis.
function power(value) {
  if (!value) return "0";
  const exponent = Math.floor(Math.log10(Math.abs(value)) + 1e-9);
  if (Math.abs(exponent) < 4) return value.toLocaleString("en");
  const mantissa = Number((value / 10 ** exponent).toPrecision(3));
  return mantissa === 1 ? `10${raised(exponent)}` : `${mantissa}·10${raised(exponent)}`;
}

function compact(value) {
  if (value === null || value === undefined) return MISSING;
  for (const [size, suffix] of [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ])
    if (Math.abs(value) >= 0.9995 * size) return `${Number((value / size).toPrecision(3))}${suffix}`;
  return String(Number(value.toPrecision(4)));
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return MISSING;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (number) => String(number).padStart(2, "0");
  const minutes = Math.floor(whole / 60);
  return minutes < 60 ? `${minutes}:${two(whole % 60)} min` : `${Math.floor(minutes / 60)}:${two(minutes % 60)} h`;
}

const FORMS = {
  text: (value) => value || MISSING,
  whole: (value) => value.toLocaleString("en"),
  score: (value) => value.toFixed(2),
  flops: (value) => scientific(value),
  count: (value) => compact(value),
  // Rounded down: 100 % means all of them.
  share: (value) => `${(Math.floor(value * 10000 + 1e-9) / 100).toFixed(2)} %`,
  duration,
};

function shown(column, values) {
  const value = values[column.key];
  if (value === null || value === undefined || value === "") return MISSING;
  const error = column.error ? values[column.error] : null;
  const text = FORMS[column.form](value);
  if (error === null || error === undefined) return text;
  return `${text} ± ${error >= 0.005 || error === 0 ? error.toFixed(2) : "<0.01"}`;
}

// A value inside a curve: three digits whatever its size.
const digits = (value) =>
  value === null || value === undefined
    ? MISSING
    : Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3)
      ? scientific(value, 1)
      : String(Number(value.toPrecision(4)));
const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
