//! Which rule a method falls under.

use super::{caller::Who, method::Methods};

/// All rules, the narrowest first.
#[derive(Debug)]
pub(super) struct Rules {
    rules: Vec<(Methods, Who)>,
    /// For methods that none is about.
    others: Who,
}

impl Rules {
    /// `asks`: whether anybody's credentials are good.
    ///
    /// # Errors
    /// The rule that cannot be meant, and why.
    pub(super) fn new(set: &[(String, Who)], asks: bool) -> Result<Self, (String, String)> {
        let mut rules: Vec<(Methods, Who)> = Vec::new();
        for (methods, who) in set {
            let wrong = |why: String| (methods.clone(), why);
            let parsed = Methods::parse(methods).map_err(wrong)?;
            who.check().map_err(wrong)?;
            if !asks && !matches!(who, Who::Anybody | Who::Nobody) {
                let why = "nobody could call: no credentials are taken; set .jwt(..) or .api_keys_file(..)";
                return Err(wrong(why.to_owned()));
            }
            if rules.iter().any(|(other, _)| *other == parsed) {
                return Err(wrong("there are two rules for these methods: say AnyOf in one".to_owned()));
            }
            rules.push((parsed, who.clone()));
        }
        let health = Methods::Under(HEALTH.to_owned());
        if !rules.iter().any(|(methods, _)| *methods == health) {
            rules.push((health, Who::Anybody));
        }
        rules.sort_by_key(|(methods, _)| std::cmp::Reverse(methods.weight()));
        Ok(Self { rules, others: if asks { Who::Verified } else { Who::Anybody } })
    }

    /// Who may call `method`.
    pub(super) fn of(&self, method: &str) -> &Who {
        self.rules.iter().find(|(methods, _)| methods.hold(method)).map_or(&self.others, |(_, who)| who)
    }
}

/// What load balancers ask, without credentials and all the time.
const HEALTH: &str = "grpc.health.v1.Health/";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn rules(set: &[(&str, Who)]) -> Result<Rules, (String, String)> {
        Rules::new(&set.iter().map(|(methods, who)| ((*methods).to_owned(), who.clone())).collect::<Vec<_>>(), true)
    }

    #[test]
    fn the_narrowest_rule_decides_in_whatever_order_they_are_set() {
        let mut set = [
            ("*", Who::Nobody),
            ("shop.*", Who::scope("shop")),
            ("shop.Orders/*", Who::scope("orders")),
            ("shop.Orders/Buy", Who::scope("buy")),
        ];
        for _ in 0..2 {
            let rules = rules(&set).unwrap();

            assert_eq!(rules.of("shop.Orders/Buy"), &Who::scope("buy"));
            assert_eq!(rules.of("shop.Orders/List"), &Who::scope("orders"));
            assert_eq!(rules.of("shop.Stock/List"), &Who::scope("shop"));
            assert_eq!(rules.of("bank.Accounts/List"), &Who::Nobody);
            assert_eq!(rules.of("grpc.health.v1.Health/Check"), &Who::Anybody);
            set.reverse();
        }
    }

    #[test]
    fn without_a_rule_it_takes_credentials_but_for_health() {
        let rules = rules(&[]).unwrap();

        assert_eq!(rules.of("shop.Orders/Buy"), &Who::Verified);
        assert_eq!(rules.of("grpc.health.v1.Health/Watch"), &Who::Anybody);
        assert_eq!(rules.of("grpc.reflection.v1.ServerReflection/ServerReflectionInfo"), &Who::Verified);
        assert_eq!(rules.of(""), &Who::Verified);
    }

    #[test]
    fn health_can_be_closed() {
        let rules = rules(&[("grpc.health.v1.Health", Who::Verified)]).unwrap();

        assert_eq!(rules.of("grpc.health.v1.Health/Check"), &Who::Verified);
    }

    #[test]
    fn a_rule_that_cannot_be_meant_is_named() {
        let twice = rules(&[("a.B/*", Who::Nobody), ("a.B", Who::Verified)]).unwrap_err();
        let shapeless = rules(&[("a*", Who::Nobody)]).unwrap_err();
        let nobody = Rules::new(&[("*".to_owned(), Who::Verified)], false).unwrap_err();

        assert_eq!(twice, ("a.B".to_owned(), "there are two rules for these methods: say AnyOf in one".to_owned()));
        assert!(shapeless.1.contains("names no methods"), "{shapeless:?}");
        assert!(nobody.1.contains(".api_keys_file(..)"), "{nobody:?}");
    }
}
