-- What wrk sends: the workload named by the first argument. Prints one line of JSON at the end.
local key, run, number = os.getenv("BENCH_KEY"), os.getenv("BENCH_RUN"), 0
local passage = '{"plaza":"harbour-bridge","lane":"3","class":"car","plate":"AB-12-CD",' ..
  '"passed_at":"2026-05-04T07:15:00Z","payment_method":"tag"}'
-- Every how many requests a passage is recorded; 0 for never.
local writes = 0
local headers

function init(args)
  writes = ({passage = 1, mixed = 10})[args[1]] or 0
  -- Who has one gets no answer that was kept for others.
  if args[1] ~= "kept" then wrk.headers["Cookie"] = "bench=1" end
  headers = {
    ["Host"] = wrk.headers["Host"],
    ["Authorization"] = "Bearer " .. key,
    ["Content-Type"] = "application/json",
  }
end

function request()
  number = number + 1
  if writes == 0 or number % writes > 0 then return wrk.format() end
  headers["Idempotency-Key"] = run .. "-" .. number
  return wrk.format("POST", "/api/v1/passages", headers, passage)
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests":%d,"seconds":%f,"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d,' ..
    '"p50":%f,"p99":%f,"most":%f}\n',
    summary.requests, summary.duration / 1e6,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end
