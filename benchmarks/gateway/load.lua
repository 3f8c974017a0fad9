-- wrk's part: sends the request in the file $BENCH_REQUEST, each with a body of its own.
-- "%number%" in the file becomes eight hex digits; one that has none is sent as it is.
local file = assert(io.open(os.getenv("BENCH_REQUEST"), "rb"))
local text = file:read("*a")
file:close()
local from, to = text:find("%number%", 1, true)
local before, after = text:sub(1, (from or 1) - 1), text:sub((to or 0) + 1)
local number = 0

if from then
  function request()
    number = number + 1
    return before .. string.format("%08x", number) .. after
  end
else
  function request()
    return text
  end
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"took_s":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"errors":%d,"bad":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
