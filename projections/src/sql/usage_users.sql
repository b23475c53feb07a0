-- What the users $2 hold in the scopes $1.
select u.scope_id, u.user_id, u.live, u.since, u.left_at
from unnest($1::uuid[], $2::text[]) w (scope_id, user_id) join usage_users u using (scope_id, user_id)
