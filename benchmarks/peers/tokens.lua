-- wrk: cycle through as many different good tokens as the argument says.
local requests, next_one = {}, 0
init = function(arguments)
  for number = 1, tonumber(arguments[1]) do
    requests[number] = wrk.format("GET", wrk.path, { ["Authorization"] = string.format("Bearer good-%06d-abcdefghijklmnopqrstuvwxyz", number) })
  end
end
request = function()
  next_one = next_one % #requests + 1
  return requests[next_one]
end
